"""Limits of everything but chat, by django-ratelimit: signing in, and the API's other routes.

They are not on the way of a chat turn, so two more round trips and a thread do no harm. Where Redis does not answer they count
nothing: the sign-in is slow by itself (a password hash), and the other routes need a key.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django_ratelimit.core import get_usage

from observability.redis import RedisDown, redis_call
from observability.rules import WINDOW_S, Rule, Standing, Verdict


def count_request(request: HttpRequest, *, scope: str, name: str, per_minute: int) -> Verdict:
    """Count a request of `name` against `per_minute` (0: no limit), and tell how it stands. Blocks."""
    if not per_minute:
        return Verdict()
    try:
        usage: dict[str, Any] | None = redis_call(
            lambda client: get_usage(
                request, group=scope, key=lambda group, request: name, rate=f"{per_minute}/{WINDOW_S}s", increment=True
            )
        )
    except RedisDown:
        return Verdict()
    if usage is None:
        return Verdict()
    standing = Standing(
        rule=Rule(scope, "requests", per_minute, counter=name),
        quota=per_minute,
        remaining=max(0, per_minute - usage["count"]),
        reset_s=max(1, usage["time_left"]),
    )
    return Verdict((standing,), standing if usage["should_limit"] else None)
