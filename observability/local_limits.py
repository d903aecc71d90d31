"""The same limits without Redis: each process counts for itself, with its share of each quota."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from django.conf import settings

from observability.rules import WINDOW_S, Rule, Standing, Verdict, Visit

_MOST_WINDOWS: Final = 50_000


class LocalCounters:
    """Counters of one process. Bursts of several threads use them.

    `now`: a clock in seconds that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}  # by counter, the one that began first at the front: when it ends, what is used
        self._places: dict[str, dict[str, float]] = {}  # by counter, until when each turn has a place

    def admit(self, visit: Visit) -> Verdict:
        """Count a turn against all its rules, or none."""
        with self._lock:
            now = self._now()
            standings = tuple(self._standing(rule, now) for rule in visit.rules)
            refused = next((standing for standing in standings if standing.remaining == 0), None)
            if refused:
                return Verdict(standings, refused)
            for rule in visit.rules:
                if rule.measure == "concurrent":
                    self._places.setdefault(rule.counter, {})[visit.id] = now + visit.lease_s
                elif rule.measure == "requests":
                    self._count(rule.counter, 1, now)
            return Verdict(tuple(self._standing(rule, now) for rule in visit.rules))

    def leave(self, visit: Visit, tokens: int) -> None:
        """Free the places of a turn that has ended, and count its tokens."""
        with self._lock:
            if not (self._places or tokens):  # as ever while Redis answers
                return
            now = self._now()
            for rule in visit.rules:
                if rule.measure == "concurrent":
                    self._free(rule.counter, visit.id)
                elif rule.measure == "tokens" and tokens:
                    self._count(rule.counter, tokens, now)

    def _free(self, counter: str, turn: str) -> None:
        places = self._places.get(counter, {})
        places.pop(turn, None)
        if not places:
            self._places.pop(counter, None)

    def _standing(self, rule: Rule, now: float) -> Standing:
        quota = max(1, rule.quota // settings.WEB_CONCURRENCY) if rule.quota else 0
        if rule.measure == "concurrent":
            used, ends_at = sum(1 for until in self._places.get(rule.counter, {}).values() if until > now), now + 1
        else:
            ends_at, used = self._window(rule.counter, now)
        return Standing(rule=rule, quota=quota, remaining=max(0, quota - used), reset_s=max(1, math.ceil(ends_at - now)))

    def _window(self, counter: str, now: float) -> tuple[float, int]:
        ends_at, used = self._windows.get(counter, (0.0, 0))
        return (ends_at, used) if ends_at > now else (now + WINDOW_S, 0)

    def _count(self, counter: str, amount: int, now: float) -> None:
        ends_at, used = self._window(counter, now)
        if used == 0:
            self._windows.pop(counter, None)  # a new window goes to the back
            if len(self._windows) >= _MOST_WINDOWS:
                del self._windows[next(iter(self._windows))]
        self._windows[counter] = (ends_at, used + amount)
