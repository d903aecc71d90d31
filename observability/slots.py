"""Where web processes keep their counts: files in a folder that all of one server share, so that any of them answers for all.

Each process takes the lowest slot that no other one holds, and its files are named after it. Whoever takes the place of a process
that was killed goes on with its files: counters never go back, and there are never more files than processes at once. A slot is
held by a lock, which the kernel gives up with the process, however that ends.

Without PROMETHEUS_MULTIPROC_DIR (the worker, commands, tests) a process keeps its counts to itself.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
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


_PREFIX: Final = "chatbot-metrics-"
_SERVER_LOCK: Final = "server.lock"


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str
    lock: int


_held: _Slot | None = None


def make_folder(parent: str | None = None) -> Path:
    """Make an empty folder for the processes of one server, and remove those of servers that were killed.

    It is in use for as long as the calling process lives, or one that it forks.

    Args:
        parent: where to make it; None: where temporary files are.
    """
    new = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
    _lock(new / _SERVER_LOCK)  # held until the process ends
    path = new.rename(new.with_name(new.name.removeprefix(".")))  # only now others may look whether it is in use
    for other in path.parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is in use, or somebody else's
            os.close(_lock(other / _SERVER_LOCK))
            shutil.rmtree(other)
    return path


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
        for file in path.glob("slot-*.lock"):
            with suppress(BlockingIOError):  # it lives
                os.close(_lock(file))
                _remove_live_gauges(path, file.stem.removeprefix("slot-"))


def _take(path: Path) -> _Slot:
    with _sole_access(path):
        for number in count():
            with suppress(BlockingIOError):
                held = _Slot(str(number), _lock(path / f"slot-{number}.lock"))
                _remove_live_gauges(path, held.name)
                return held
    raise AssertionError("numbers do not end")


def _lock(file: Path) -> int:
    """Lock a file, which is made where there is none, and return its descriptor.

    Raises:
        BlockingIOError: another process holds it.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


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
