"""How many turns a process answers at once, and its end."""

from __future__ import annotations

import asyncio

import pytest
from pytest_django import Settings

from agents.chat.running import RunningTurns
from observability.errors import Unavailable


def test_places_are_bounded_and_given_back(settings: Settings) -> None:
    settings.CHAT_MAX_CONCURRENT_TURNS = 3

    async def run() -> None:
        turns, leave = RunningTurns(), asyncio.Event()

        async def hold() -> None:
            with turns.admit():
                await leave.wait()

        for _ in range(2):
            tasks = [asyncio.create_task(hold()) for _ in range(5)]
            await asyncio.sleep(0)
            refused = [task for task in tasks if task.done()]
            assert [type(task.exception()) for task in refused] == [Unavailable] * 2
            tasks[0].cancel()
            leave.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            leave.clear()

    asyncio.run(run())


def test_stopping_interrupts_turns_and_waits_for_what_they_still_write() -> None:
    written: list[str] = []

    async def run() -> None:
        turns = RunningTurns()

        async def write() -> None:
            await asyncio.sleep(0.05)
            written.append("how it ended")

        async def hold() -> None:
            with turns.admit():
                try:
                    await asyncio.Event().wait()
                finally:
                    turns.finish_in_background(write())

        tasks = [asyncio.create_task(hold()) for _ in range(10)]
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await turns.stop()
        assert all(task.cancelled() for task in tasks)
        with pytest.raises(Unavailable), turns.admit():
            pass

    asyncio.run(run())
    assert written == ["how it ended"] * 10


def test_stopping_an_idle_process_takes_no_time() -> None:
    async def run() -> None:
        async with asyncio.timeout(10):
            await RunningTurns().stop()

    asyncio.run(run())
