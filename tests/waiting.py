"""Waiting for what another process does, and judging how long it takes, on machines that are busy with other things too."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(ask: Callable[[], T], *, what: str, timeout_s: float = 30.0, every_s: float = 0.02) -> T:
    """Return the first true answer of `ask`.

    Raises:
        AssertionError: there was none in time; shows the last answer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if answer := ask():
            return answer
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what} (last: {answer!r})"
        time.sleep(every_s)


def timely(work: Callable[[], T], *, within_s: float, tries: int = 3) -> T:
    """Return the first answer of `work` that came within `within_s`: a busy machine is late now and then, a fault each time.

    Raises:
        AssertionError: each of `tries` took longer.
    """
    took_s = []
    for _ in range(tries):
        started = time.monotonic()
        answer = work()
        took_s.append(time.monotonic() - started)
        if took_s[-1] < within_s:
            return answer
    raise AssertionError(f"never within {within_s} s, but in {', '.join(f'{seconds:.2f}' for seconds in took_s)} s")
