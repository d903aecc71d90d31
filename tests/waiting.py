"""Waiting for what another process does: ask again until it is so, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(ask: Callable[[], T], *, what: str, timeout_s: float = 10.0, every_s: float = 0.02) -> T:
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
