"""What a turn did, when, and why: kept beside it for those who look into it (`memory.admin.traces` shows it).

The hot path only notes moments; everything else is put together once, as the turn is stored. Nothing of what was said is in it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from agents.chat.metering import Meter
from agents.chat.routing import Route
from agents.versions.live import Answering
from memory.api import FinishedTurn

_encode: Final = msgspec.json.Encoder().encode


class Trace:
    """The steps of one turn, each told when it ends, and facts about them."""

    __slots__ = ("_began_at", "_facts", "_now", "_steps")

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._began_at = self._now()
        self._steps: list[tuple[str, float]] = []
        self._facts: dict[str, Any] = {}

    def mark(self, step: str, **facts: Any) -> None:
        """Note that `step` has just ended, which began when the one before it did, and what is to be said of it."""
        self._steps.append((step, self._now()))
        if facts:
            self._facts |= facts

    def on(self, finished: FinishedTurn, meter: Meter | None, route: Route | None, answering: Answering) -> FinishedTurn:
        """Return `finished` with all this and with what was sent to the model; unchanged where the version keeps no traces."""
        if not answering.trace_days:
            return finished
        ended_at = self._now()
        told: dict[str, Any] = {"steps": [(step, self._ms(at)) for step, at in self._steps], "end": self._ms(ended_at), **self._facts}
        if route is not None:
            told["route"] = route.why.encode(errors="replace").decode()  # a reason may quote a provider, half characters included
        if meter is not None:
            told["calls"] = {str(id): self._ms(at) for id, at in meter.begun.items()}
            if meter.passed_over:
                told["passed_over"] = [(provider, model, code, self._ms(at)) for provider, model, code, at in meter.passed_over]
        # PostgreSQL's JSON cannot hold NUL.
        trace = _encode(told).decode().replace(r"\u0000", r"\ufffd")
        return replace(finished, trace=trace, sent=meter.body.decode() if meter else "")

    def _ms(self, at: float) -> float:
        return round((at - self._began_at) * 1000, 1)
