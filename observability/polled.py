"""Settings that live in the database and are needed on every request: read at most every few seconds, by one reader at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from django.db import Error as DatabaseError

from observability.bursts import run_burst
from observability.logs import in_words

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
        task = self._loading
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._loading = asyncio.create_task(self._read(known))
        return await asyncio.shield(task)

    def latest(self) -> T:
        """Return the value as it was last read, for code on a thread that somebody started who awaited `get` just before."""
        known = self._known
        return self._load() if known is None else known[1]

    def forget(self) -> None:
        """Read it anew when it is next asked for, though it be read at this moment: somebody has just changed it."""
        self._known = None
        self._loading = None

    async def _read(self, last: tuple[float, T] | None) -> T:
        asked_at = time.monotonic()
        try:
            value = await run_burst(self._load)
        except DatabaseError as error:
            if last is None:
                raise
            log.warning("settings not read again; the last ones hold", reason=in_words(error))
            asked_at, value = time.monotonic(), last[1]  # not asked for again by every request meanwhile
        if self._loading is asyncio.current_task():
            self._known = (asked_at, value)
        return value
