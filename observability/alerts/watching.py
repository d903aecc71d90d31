"""All of alerting, as the worker does it: looking, sending, and watching over PostgreSQL itself. Any number of workers may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import httpx2
import structlog

from observability.alerts import outage, sending
from observability.alerts.incidents import forget_old, look
from observability.bursts import run_burst
from observability.jobs import note_job_failure
from observability.logs import in_words
from observability.models import Telling
from observability.outbound import new_client
from observability.queues import Queue, register_queue
from observability.rounds import is_set_within, keep_doing

log = structlog.get_logger(__name__)

QUEUE: Final = "alerts"
_LOOK_EVERY_S: Final = 10.0
_SEND_EVERY_S: Final = 2.0
_WATCH_EVERY_S: Final = 5.0
# After an outage of PostgreSQL's, too, people are told soon of what else is wrong.
_LONGEST_WAIT_S: Final = 20.0
# What is held in quiet hours waits for nobody until they are over: as `sending.is_quiet` and `sending.take` have it.
_WAITING: Final = """
    SELECT count(*), min(greatest(notice.created_at, quiet.ended_at))
    FROM observability_notice notice
    JOIN observability_incident incident ON incident.id = notice.incident_id
    JOIN observability_alertrule rule ON rule.id = incident.rule_id
    LEFT JOIN observability_alerttarget target ON target.id = notice.target_id,
    LATERAL (SELECT now() AT TIME ZONE coalesce(target.time_zone, 'UTC') AS now) AS local,
    LATERAL (SELECT CASE WHEN target.quiet_from <= target.quiet_until
            THEN local.now::time >= target.quiet_from AND local.now::time < target.quiet_until
            ELSE local.now::time >= target.quiet_from OR local.now::time < target.quiet_until END AS is_now,
        CASE WHEN target.quiet_from <> target.quiet_until AND NOT rule.is_critical
            THEN (local.now::date - (local.now::time < target.quiet_until)::int + target.quiet_until) AT TIME ZONE target.time_zone
            END AS ended_at
    ) AS quiet
    WHERE notice.state = 'waiting' AND notice.tries > 0 AND (rule.is_critical OR quiet.is_now IS NOT TRUE)
"""

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


async def keep_alerting(
    stopping: asyncio.Event, *, look_every_s: float = _LOOK_EVERY_S, send_every_s: float = _SEND_EVERY_S, clock: Clock = utc_now
) -> None:
    """Watch, and tell what is wrong and what is over, until `stopping` is set."""
    async with new_client() as client, asyncio.TaskGroup() as group:
        group.create_task(_keep_looking(stopping, every_s=look_every_s, clock=clock))
        group.create_task(_keep_sending(stopping, client, every_s=send_every_s, clock=clock))
        group.create_task(_keep_watching_postgresql(stopping, client, clock=clock))


def register_alert_queue() -> None:
    """Have counted what targets have not taken."""
    register_queue(Queue(QUEUE, _WAITING))


async def _keep_looking(stopping: asyncio.Event, *, every_s: float, clock: Clock) -> None:
    async def step() -> None:
        now = clock()
        for change in await run_burst(look, now=now) or ():
            write = log.info if change.telling is Telling.RESOLVED else log.warning
            write(f"alert {change.telling.label}", rule=change.incident.rule.kind, about=change.incident.name, text=change.text)
        await run_burst(sending.give_up_for_nobody)
        await run_burst(forget_old, now=now)

    await keep_doing(stopping, step, every_s=every_s, what="looking for what is wrong", queue=QUEUE, longest_wait_s=_LONGEST_WAIT_S)


async def _keep_sending(stopping: asyncio.Event, client: httpx2.AsyncClient, *, every_s: float, clock: Clock) -> None:
    """Each target has a task of its own while something is sent to it, so that a slow one keeps no other waiting."""
    under_way: dict[int | None, asyncio.Task[bool]] = {}

    async def step() -> None:
        for target_id in [target_id for target_id, task in under_way.items() if task.done()]:
            if error := under_way.pop(target_id).exception():
                await _note(error)
        now = clock()
        for target_id in await run_burst(sending.waiting_targets, now=now, but=list(under_way)):
            under_way[target_id] = asyncio.create_task(sending.send_to(target_id, client=client, now=now))

    try:
        await keep_doing(stopping, step, every_s=every_s, what="sending alerts", queue=QUEUE, longest_wait_s=_LONGEST_WAIT_S)
    finally:
        await asyncio.gather(*under_way.values(), return_exceptions=True)  # each ends within its deadline


async def _note(error: BaseException) -> None:
    """Of one target: the others are told all the same, and its lease ends."""
    log.warning("sending to a target failed", reason=in_words(error), exc_info=error)
    if isinstance(error, Exception):
        await note_job_failure(QUEUE, error)


async def _keep_watching_postgresql(stopping: asyncio.Event, client: httpx2.AsyncClient, *, clock: Clock) -> None:
    known = outage.Outage()
    while not await is_set_within(stopping, seconds=_WATCH_EVERY_S):
        is_up = await outage.answers()
        try:
            await outage.watch(known, client, is_up=is_up, now=clock())
        except Exception as error:  # a fault of ours must not end the worker
            log.warning("watching over postgresql failed", reason=in_words(error), exc_info=True)
