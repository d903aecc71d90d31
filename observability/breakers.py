"""Circuit breakers as others see them: rows that alerts and the admin read. The breakers themselves live in each process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import connection

from observability.models import Breaker

BREAKER_FORGOTTEN_AFTER: Final = timedelta(minutes=15)
"""For how long an open breaker of which nobody hears is taken to be open."""

# Several processes may open, or go on seeing, the same one: that is one opening.
_OPEN: Final = """
    INSERT INTO observability_breaker (provider, model, opened_at, seen_at, reason)
    VALUES (%(provider)s, %(model)s, %(at)s, %(at)s, %(reason)s)
    ON CONFLICT (provider, model) WHERE closed_at IS NULL DO UPDATE SET seen_at = excluded.seen_at
"""


def breaker_opened(*, provider: str, model: str, reason: str) -> None:
    """Note that calls of `model` are not tried any more, or still not: each time that it is found so.

    `reason` holds no secrets and nothing of what was said. An open breaker of which no process tells for 15 minutes alerts nobody any
    more: the process that knew of it may have died.
    """
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, {"provider": provider, "model": model, "at": datetime.now(UTC), "reason": reason[:200]})


def breaker_closed(*, provider: str, model: str) -> None:
    """Note that calls of `model` are tried again."""
    Breaker.objects.filter(provider=provider, model=model, closed_at=None).update(closed_at=datetime.now(UTC))


def open_breakers() -> list[Breaker]:
    """Return the breakers that are open, the first one to open first: those of which some process told within 15 minutes."""
    return list(Breaker.objects.filter(closed_at=None, seen_at__gte=datetime.now(UTC) - BREAKER_FORGOTTEN_AFTER).order_by("opened_at"))
