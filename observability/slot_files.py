"""The files of a slot, with their space reserved before they are written to.

prometheus_client writes to them as to memory. A file that was only made longer has no space yet, and where the disk, or /dev/shm, is
full by the time that it is written to, the kernel kills the process (SIGBUS). So the space is taken first; where there is none, what
is new is not told to Prometheus, and everything else goes on. A file that could not grow stays as it is for as long as its process has
it: what fits in beside what did not would be half of a histogram, or one agent of many.
"""

from __future__ import annotations

import os
from typing import Final

import structlog
from prometheus_client import mmap_dict

log = structlog.get_logger(__name__)

_FIRST_BYTES: Final = 1 << 16
# What prometheus_client writes beside a key: its length before it, two numbers behind it.
_LENGTH_BYTES: Final = 4
_NUMBERS_BYTES: Final = 16
_NOTHING: Final = (0.0, 0.0)

_is_told = False


class SlotFile(mmap_dict.MmapedDict):
    """Numbers by key in a file, as prometheus_client keeps them. Once there is no space for a key, nobody counts any that is new."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._is_full = False
        self._f = None  # type: ignore[assignment] # until there is one, as after `close`
        try:
            if not read_mode:
                _make(filename)
        except OSError as error:
            _tell(error)
        else:
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call] # prometheus_client's own

    def read_value(self, key: str) -> tuple[float, float]:
        return super().read_value(key) if self._has_space_for(key) else _NOTHING  # type: ignore[no-untyped-call] # as above

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        if self._has_space_for(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call] # as above

    def _has_space_for(self, key: str) -> bool:
        if self._f is None or (self._is_full and key not in self._positions):
            return False
        if key in self._positions:
            return True
        encoded_bytes = _LENGTH_BYTES + len(key.encode())
        needed_bytes = self._used + encoded_bytes + 8 - encoded_bytes % 8 + _NUMBERS_BYTES
        capacity = self._capacity
        while needed_bytes > capacity:
            capacity *= 2
        try:
            if capacity > self._capacity:
                _reserve(self._f.fileno(), capacity)
        except OSError as error:
            self._is_full = True
            _tell(error)
            return False
        return True


def _make(filename: str) -> None:
    """Make the file where there is none, at once in full length: nobody finds it empty. One that is there may still have holes.

    Raises:
        OSError: there is no space for it.
    """
    if os.path.exists(filename):
        with open(filename, "r+b") as file:
            _reserve(file.fileno(), max(_FIRST_BYTES, os.path.getsize(filename)))
        return
    new = f"{filename}.new"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _reserve(descriptor, _FIRST_BYTES)
        os.rename(new, filename)
    except OSError:
        os.unlink(new)
        raise
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, length: int) -> None:
    """Take the space of a file's first `length` bytes, and make it as long where it is shorter.

    Raises:
        OSError: there is not as much.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, length)
        return
    # macOS does not have it. Zeros behind the end take space as well; what is before it was written like this, too.
    with open(descriptor, "ab", closefd=False) as file:
        file.write(bytes(length - os.fstat(descriptor).st_size))


def _tell(error: OSError) -> None:
    global _is_told
    if not _is_told:
        _is_told = True
        log.warning("no space for metrics: those that are new in this process are missing", reason=error.strerror)
