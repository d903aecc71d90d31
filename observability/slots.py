"""Where web processes keep their counts: files in a folder that all of one server share, so that any of them answers for all.

Each process takes the lowest slot that no other one holds, and its files are named after it. Whoever takes the place of a process
that was killed goes on with its files: counters never go back, and there are never more files than processes at once. A slot is
held by a lock, which the kernel gives up with the process, however that ends.

Without PROMETHEUS_MULTIPROC_DIR (the worker, commands, tests) a process keeps its counts to itself.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Set by gunicorn.conf.py; the name is prometheus_client's."""
# Gauges that tell of processes alive, by prometheus_client's names for their files.
_LIVE: Final = "gauge_live*_{slot}.db"


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str
    lock: int


_held: _Slot | None = None


def folder() -> Path | None:
    """Return where this server's processes keep their counts; None: in memory, each for itself."""
    path = os.environ.get(FOLDER_VARIABLE)
    return Path(path) if path else None


def slot() -> str:
    """Return the number of this process's slot, which it takes when it is first asked for."""
    global _held
    if _held is None:
        path = folder()
        assert path is not None
        _held = _take(path)
    return _held.name


def forget_the_dead(path: Path) -> None:
    """Remove what processes that are gone said of themselves as long as they lived, such as their open streams."""
    with _sole_access(path):
        for lock in path.glob("slot-*.lock"):
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_live_gauges(path, lock.stem.removeprefix("slot-"))
            except BlockingIOError:
                pass  # it lives
            finally:
                os.close(descriptor)


def _take(path: Path) -> _Slot:
    with _sole_access(path):
        for number in count():
            descriptor = os.open(path / f"slot-{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            _remove_live_gauges(path, str(number))
            return _Slot(str(number), descriptor)
    raise AssertionError("numbers do not end")


def _remove_live_gauges(path: Path, name: str) -> None:
    for file in path.glob(_LIVE.format(slot=name)):
        file.unlink(missing_ok=True)


@contextmanager
def _sole_access(path: Path) -> Iterator[None]:
    """Keep others from looking at slots meanwhile: who looks holds a lock for a moment that would seem to be an owner's."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _begin_anew() -> None:
    """Leave the slot to the parent: a child that was forked shares its lock, and must not write to its files."""
    global _held
    if _held is not None:
        with suppress(OSError):
            os.close(_held.lock)
        _held = None


os.register_at_fork(after_in_child=_begin_anew)
