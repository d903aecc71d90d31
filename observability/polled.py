"""Settings that live in the database and are needed on every request: read at most every few seconds, by one reader at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from django.db import Error as DatabaseError

from observability.bursts import run_burst

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Polled(Generic[T]):
    """A value that `load` reads from the database, no older than `fresh_for_s` when it is asked for.

    A change is seen in every process within that time, without messages between them. Where the database does not answer,
    the last value holds on.
    """

    def __init__(self, load: Callable[[], T], *, fresh_for_s: float) -> None:
        self._load = load
        self._fresh_for_s = fresh_for_s
        self._known: tuple[float, T] | None = None
        self._loading: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the value.

        Raises:
            django.db.Error: the database does not answer, and never did.
        """
        known = self._known
        if known is not None and time.monotonic() - known[0] < self._fresh_for_s:
            return known[1]
        if self._loading is None or self._loading.get_loop() is not asyncio.get_running_loop():
            self._loading = asyncio.create_task(self._read())
        task = self._loading
        try:
            return await asyncio.shield(task)
        except DatabaseError as error:
            if known is None:
                raise
            log.warning("settings not read again; the last ones hold", reason=str(error))
            self._known = (time.monotonic(), known[1])  # not asked for again by every request meanwhile
            return known[1]
        finally:
            if self._loading is task and task.done():
                self._loading = None

    def forget(self) -> None:
        """Read it anew when it is next asked for: somebody has just changed it."""
        self._known = None

    async def _read(self) -> T:
        asked_at = time.monotonic()
        value = await run_burst(self._load)
        self._known = (asked_at, value)
        return value
