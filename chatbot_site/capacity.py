"""How many web workers this machine, or the container that it is, has room for: its cores, its memory, and no more.

A container's limits are control groups. Both versions are read, with every level above, because any of them may limit.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

WORKER_BYTES: Final = 150_000_000
"""What one worker takes while it is busy (docs/benchmarks.md measured 137 MB)."""
RESERVED_BYTES: Final = 100_000_000
"""For gunicorn's own process, and a command that somebody runs beside it."""
MOST_WORKERS: Final = 8
"""More of them would open more database connections than PostgreSQL allows unless told so. WEB_CONCURRENCY may say more."""


def web_workers(root: Path = Path("/")) -> int:
    """Return how many workers to run, 1 to `MOST_WORKERS`.

    Args:
        root: where `proc` and `sys` are.
    """
    return max(1, min(usable_cores(root), (usable_bytes(root) - RESERVED_BYTES) // WORKER_BYTES, MOST_WORKERS))


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores that this process may use: those it may run on, or the share of time it is given, rounded up."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([pinned, *(math.ceil(share) for share in _core_limits(root))])


def usable_bytes(root: Path = Path("/")) -> int:
    """Return the memory that this process may use, in bytes."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_memory_limits(root)])


def _core_limits(root: Path) -> Iterator[float]:
    for group in _groups(root, "cpu"):
        for quota_and_period in (_words(group / "cpu.max"), _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")):
            with contextlib.suppress(ValueError):  # no such file, or "max"
                quota, period = map(int, quota_and_period)
                if quota > 0:  # -1: no limit
                    yield quota / period


def _memory_limits(root: Path) -> Iterator[int]:
    for group in _groups(root, "memory"):
        for words in (_words(group / "memory.max"), _words(group / "memory.limit_in_bytes")):
            with contextlib.suppress(ValueError):
                [limit] = map(int, words)
                yield limit


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those above it, for `controller`."""
    for line in (root / "proc/self/cgroup").read_text().splitlines() if (root / "proc/self/cgroup").exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = {controllers, controller} if controllers else {"", "unified"}  # version 2 has one tree for all
        for mount in sorted(mounts):
            top = root / "sys/fs/cgroup" / mount
            # Seen from inside a container the path may be the host's, which is not there: then the top is the container's.
            yield from (top / above for above in (path.lstrip("/"), *map(str, Path(path.lstrip("/")).parents)))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
