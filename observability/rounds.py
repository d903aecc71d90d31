"""Work that the worker does again and again until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from django.db import Error as DatabaseError

from observability.jobs import note_job_failure
from observability.logs import in_words

log = structlog.get_logger(__name__)

_LONGEST_WAIT_S = 300.0


async def keep_doing(
    stopping: asyncio.Event,
    step: Callable[[], Awaitable[None]],
    *,
    every_s: float,
    what: str,
    queue: str,
    longest_wait_s: float = _LONGEST_WAIT_S,
) -> None:
    """Do `step` every so many seconds until `stopping` is set.

    What fails is logged, noted of `queue` and tried again, ever less often, but for once in `longest_wait_s`.
    """
    wait_s = every_s
    while not await is_set_within(stopping, seconds=wait_s):
        try:
            await step()
            wait_s = every_s
        except Exception as error:  # a fault of ours must not end the worker either
            wait_s = min(wait_s * 2, max(longest_wait_s, every_s))
            log.warning(f"{what} failed", reason=in_words(error), exc_info=not isinstance(error, DatabaseError))
            await note_job_failure(queue, error)


async def keep_draining(stopping: asyncio.Event, drain: Callable[[], Awaitable[int]], *, every_s: float, failed: str, queue: str) -> None:
    """Do `drain` until `stopping` is set: at once again while it finds something, else after `every_s` seconds.

    It may take minutes: what is under way when this has to stop is cancelled. What fails is logged as `failed`, noted of `queue`, and tried
    again.
    """
    work = asyncio.create_task(_drain_for_ever(drain, every_s=every_s, failed=failed, queue=queue))
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        work.cancel()
        stop.cancel()
        await asyncio.gather(work, stop, return_exceptions=True)


async def _drain_for_ever(drain: Callable[[], Awaitable[int]], *, every_s: float, failed: str, queue: str) -> None:
    while True:
        try:
            found = await drain()
        except Exception as error:  # a fault of ours must not end the worker either: it would only be started again
            log.warning(failed, reason=in_words(error), exc_info=not isinstance(error, DatabaseError))
            await note_job_failure(queue, error)
            found = 0
        if not found:
            await asyncio.sleep(every_s)


async def is_set_within(event: asyncio.Event, *, seconds: float) -> bool:
    """Wait for `event` for at most so many seconds; tell whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
