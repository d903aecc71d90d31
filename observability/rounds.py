"""Work that the worker does again and again until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from django.db import Error as DatabaseError

log = structlog.get_logger(__name__)

_LONGEST_WAIT_S = 300.0


async def keep_doing(stopping: asyncio.Event, step: Callable[[], Awaitable[None]], *, every_s: float, what: str) -> None:
    """Do `step` every so many seconds until `stopping` is set. What fails is logged and tried again, ever less often."""
    wait_s = every_s
    while not await _is_set_within(stopping, seconds=wait_s):
        try:
            await step()
            wait_s = every_s
        except Exception as error:  # a fault of ours must not end the worker either
            wait_s = min(wait_s * 2, max(_LONGEST_WAIT_S, every_s))
            log.warning(f"{what} failed", reason=f"{type(error).__name__}: {error}", exc_info=not isinstance(error, DatabaseError))


async def _is_set_within(event: asyncio.Event, *, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
