"""What the doctor looks at: examinations by name, which each part of this server registers, and what they find."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from django.db import connection

T = TypeVar("T")

DATABASE: Final = "database"
MIGRATIONS: Final = "migrations"
CACHE: Final = "cache"
READING_TABLES: Final = (DATABASE, MIGRATIONS)
"""What an examination `needs` that reads tables."""


class Grade(StrEnum):
    """How bad it is, from nothing to worst."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen, and what to do about it.

    Attributes:
        about: which one it is, of an examination that looks at several things.
    """

    grade: Grade
    seen: str
    remedy: str = ""
    about: str = ""

    @classmethod
    def ok(cls, seen: str, *, about: str = "") -> Finding:
        """All is well."""
        return cls(Grade.OK, seen, about=about)

    @classmethod
    def warning(cls, seen: str, remedy: str, *, about: str = "") -> Finding:
        """It works, but ought to be otherwise."""
        return cls(Grade.WARNING, seen, remedy, about)

    @classmethod
    def failed(cls, seen: str, remedy: str, *, about: str = "") -> Finding:
        """It does not work."""
        return cls(Grade.FAILED, seen, remedy, about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """A look at one thing.

    Attributes:
        run: looks, and returns what it found. What it raises is a finding too, so that it may leave out what it does not expect.
        remedy: what to do where it raised, or did not end in time.
        needs: names of examinations without whose success it has nothing to look at.
        is_call: it asks others for something that may cost money, so that it is left out where somebody wants no calls.
    """

    name: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
    remedy: str
    needs: tuple[str, ...] = ()
    deadline_s: float = 20.0
    is_call: bool = False


_examinations: Final[dict[str, Examination]] = {}


def register_examination(examination: Examination) -> None:
    """Make `examination` a part of the doctor's round; one of the same name replaces it."""
    _examinations[examination.name] = examination


def examinations() -> list[Examination]:
    """Return what is looked at, in the order of registration."""
    return list(_examinations.values())


def in_thread(look: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """Return `look` as an async function. It runs on a thread that nobody waits for who has given up, not even at the process's end."""

    async def run() -> T:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = look()
            except Exception as error:
                _settle(loop, found, error=error)
            else:
                _settle(loop, found, result=[result])
            finally:
                connection.close()

        threading.Thread(target=work, name="doctor", daemon=True).start()
        return await found

    return run


def _settle(loop: asyncio.AbstractEventLoop, found: asyncio.Future[T], *, result: Sequence[T] = (), error: Exception | None = None) -> None:
    def settle() -> None:
        if found.done():  # nobody waits any more
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(result[0])

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
