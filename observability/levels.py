"""The log's level while the server runs: every process looks for a change every few seconds, and an end that nobody can forget."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import transaction

from observability.bursts import run_burst
from observability.logs import set_level
from observability.models import LogLevel
from observability.rounds import is_set_within

log = structlog.get_logger(__name__)

LONGEST: Final = timedelta(days=7)
_LOOK_EVERY_S: Final = 4.0


@transaction.atomic
def change_level(level: str, *, lasting: timedelta, by: str) -> LogLevel:
    """Let all processes write lines of `level` and above for a while, at most `LONGEST`; every one does so within five seconds."""
    now = datetime.now(UTC)
    LogLevel.objects.filter(until__gt=now).update(until=now)
    changed = LogLevel.objects.create(level=level, set_at=now, until=now + min(lasting, LONGEST), set_by=by)
    log.warning("log level changed", to=level, until=changed.until, by=by)
    return changed


@transaction.atomic
def restore_level(*, by: str) -> bool:
    """Let LOG_LEVEL hold again at once; tell whether anything else did."""
    ended = LogLevel.objects.filter(until__gt=datetime.now(UTC)).update(until=datetime.now(UTC))
    if ended:
        log.warning("log level restored", to=settings.LOG_LEVEL, by=by)
    return bool(ended)


def level_now() -> str:
    """Return the level that holds now: of the newest change that has not ended, or LOG_LEVEL."""
    newest = LogLevel.objects.order_by("-id").values_list("level", "until").first()
    return newest[0] if newest and newest[1] > datetime.now(UTC) else settings.LOG_LEVEL


async def keep_log_level(stopping: asyncio.Event) -> None:
    """Take up what the level is now, every few seconds, until `stopping` is set. Without the database it stays as it is."""
    held = settings.LOG_LEVEL
    while True:
        try:
            level = await run_burst(level_now)
        except DatabaseError:
            level = held
        if level != held:
            held = level
            set_level(level)
        if await is_set_within(stopping, seconds=_LOOK_EVERY_S):
            return
