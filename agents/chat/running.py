"""The turns that this process is answering: how many at most, and what becomes of them when it must stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings

from observability.api import count_refusal
from observability.errors import Unavailable


class RunningTurns:
    """A bounded set of turns, and the writes that must outlive them."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], int] = {}
        self._closing: set[asyncio.Task[Any]] = set()
        self._none_left: asyncio.Event | None = None
        self.stopping = False

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a place for a turn.

        Raises:
            Unavailable: the process answers as many turns as it may, or is about to stop.
        """
        if self.stopping or len(self._tasks) >= settings.CHAT_MAX_CONCURRENT_TURNS:
            count_refusal("overload")
            raise Unavailable("The server is answering as many messages as it can. Send this one again in a moment.", retry_after_s=1)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a turn runs in a task")
        self._tasks[task] = self._tasks.get(task, 0) + 1
        try:
            yield
        finally:
            self._tasks[task] -= 1
            if not self._tasks[task]:
                del self._tasks[task]
            self._look_whether_none_is_left()

    def finish_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end even though the turn's own task is being cancelled."""
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closed)

    async def stop(self) -> None:
        """Interrupt what still runs and wait until how it ended is stored."""
        self.stopping = True
        self._none_left = asyncio.Event()
        for task in list(self._tasks):
            task.cancel()
        self._look_whether_none_is_left()
        await self._none_left.wait()

    def _closed(self, task: asyncio.Task[Any]) -> None:
        self._closing.discard(task)
        self._look_whether_none_is_left()

    def _look_whether_none_is_left(self) -> None:
        if self._none_left is not None and not self._tasks and not self._closing:
            self._none_left.set()


running_turns = RunningTurns()
