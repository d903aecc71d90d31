"""Cores that do not fall asleep, as those of a busy server: one that sleeps takes long to wake, in a virtual machine above all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

# Idle class, and least of all sessions: whoever else wants the core has it at once.
_SPIN: Final = """
import os
os.setsid()
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
try:
    open("/proc/self/autogroup", "w").write("19")
except OSError:
    pass
while os.getppid() == PARENT:
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def cores_awake() -> Iterator[None]:
    """Keep every core awake. Linux alone; ends with this process, too."""
    program = f"PARENT = {os.getpid()}{_SPIN}"
    spinning = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
