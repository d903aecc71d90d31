"""PostgreSQL itself is away: told directly to ALERT_WEBHOOK_URL, and when it is back, because nothing can be written down meanwhile.

Where Redis answers, one of several workers tells; where that is gone too, each does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import httpx2
import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from observability.alerts.delivery import Message, NotTaken, post_to_webhook
from observability.bursts import run_burst
from observability.redis import PREFIX, RedisDown, redis_call

log = structlog.get_logger(__name__)

DOWN_AFTER: Final = timedelta(seconds=30)
UP_AFTER: Final = timedelta(seconds=15)
_MARK: Final = f"{PREFIX}alerts:postgresql-down"
_MARK_S: Final = 120


@dataclass(slots=True)
class Outage:
    """What this process knows of PostgreSQL's being away, at each look at it."""

    down_since: datetime | None = None
    up_since: datetime | None = None
    is_told: bool = False

    def saw(self, *, is_up: bool, now: datetime) -> str:
        """Take in a look, and return what is to be told by now: "down", "up" or ""."""
        if not is_up:
            self.up_since = None
            self.down_since = self.down_since or now
            return "down" if not self.is_told and now - self.down_since >= DOWN_AFTER else ""
        if not self.is_told:
            self.down_since = None
            return ""
        self.up_since = self.up_since or now
        return "up" if now - self.up_since >= UP_AFTER else ""


async def answers() -> bool:
    """Tell whether PostgreSQL answers."""
    try:
        await run_burst(_ask)
    except DatabaseError:
        return False
    return True


async def watch(outage: Outage, client: httpx2.AsyncClient, *, is_up: bool, now: datetime) -> None:
    """Tell of what a look found, if it is to be told. What the webhook does not take is tried again at the next look."""
    what = outage.saw(is_up=is_up, now=now)
    if outage.is_told and not is_up:
        await asyncio.to_thread(_keep_mark)
    if not what or not settings.ALERT_WEBHOOK_URL:
        return
    down_since = outage.down_since or now
    if what == "down" and not await asyncio.to_thread(_may_tell):
        return  # another worker does, and will tell of the end, too
    try:
        await post_to_webhook(client, _message(what, since=down_since, now=now))
    except NotTaken as reason:
        log.warning("outage of postgresql not told", reason=str(reason))
        if what == "down":
            await asyncio.to_thread(_forget_mark)  # for the next look, here or in another worker
        return
    if what == "down":
        log.error("postgresql is away", since=down_since.isoformat())
        outage.is_told = True
    else:
        await asyncio.to_thread(_forget_mark)
        outage.down_since, outage.up_since, outage.is_told = None, None, False


def _message(what: str, *, since: datetime, now: datetime) -> Message:
    where = f"[{settings.ENVIRONMENT_NAME}] " if settings.ENVIRONMENT_NAME else ""
    if what == "down":
        text = f"PostgreSQL has not answered since {since:%H:%M:%S} UTC. Chats get a 503. What to do: docs/runbooks/postgresql_down.md"
        return Message(f"{where}Alert: PostgreSQL is down", f"NEW: {text}")
    minutes = max(1, round((now - since) / timedelta(minutes=1)))
    return Message(f"{where}Over: PostgreSQL is down", f"OVER: PostgreSQL answers again (after {minutes:,} min).")


def _ask() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _may_tell() -> bool:
    try:
        return bool(redis_call(lambda client: client.set(_MARK, settings.ENVIRONMENT_NAME, nx=True, ex=_MARK_S)))
    except RedisDown:
        return True


def _keep_mark() -> None:
    try:
        redis_call(lambda client: client.expire(_MARK, _MARK_S))
    except RedisDown:
        return


def _forget_mark() -> None:
    try:
        redis_call(lambda client: client.delete(_MARK))
    except RedisDown:
        return
