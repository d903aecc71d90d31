"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .runner import Figures

COLUMNS = ("target", "at once", "req/s", "p50 ms", "added p50", "added p99", "first token", "added", "CPU ms", "errors")


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a target needs besides time. None where it is not known."""

    target: str
    start_s: float | None
    idle_uss_mb: float | None
    idle_rss_mb: float | None
    open_stream_kb: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that one run found."""

    machine: dict[str, str]
    figures: list[Figures]
    footprints: list[Footprint]
    acknowledged: int
    """Correct replies that this server gave."""
    stored: dict[str, int]
    """Turns in the database, by state."""

    @property
    def complaints(self) -> list[str]:
        """What must not be: replies without a stored turn or turns without a reply, errors of this server."""
        found = []
        if self.stored.get("done", 0) != self.acknowledged:
            found.append(f"{self.acknowledged} replies were acknowledged, but {self.stored.get('done', 0)} turns are stored as done")
        if others := {state: count for state, count in self.stored.items() if state != "done"}:
            found.append(f"turns that are not done: {others}")
        found += [
            f"{row.target}, {row.scenario}, {row.concurrency} at once: {row.errors}"
            for row in self.figures
            if row.errors and row.target in ("this server", "upstream")
        ]
        return found

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "complaints": self.complaints}

    def as_text(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.machine.items()]
        for scenario in dict.fromkeys(row.scenario for row in self.figures):
            lines += ["", scenario, _line(COLUMNS)]
            lines += [_line(_cells(row)) for row in self.figures if row.scenario == scenario]
        lines += ["", _line(("target", "start s", "idle USS MB", "idle RSS MB", "KB a stream"))]
        for footprint in self.footprints:
            numbers = (footprint.start_s, footprint.idle_uss_mb, footprint.idle_rss_mb, footprint.open_stream_kb)
            lines.append(_line((footprint.target, *(_number(value) for value in numbers))))
        lines += ["", f"{self.acknowledged} replies acknowledged, every text exact; turns stored: {self.stored}"]
        lines += [f"WRONG: {complaint}" for complaint in self.complaints]
        return "\n".join(lines)


def _cells(row: Figures) -> tuple[str, ...]:
    numbers = (
        row.requests_per_s,
        row.p50_ms,
        row.added_p50_ms,
        row.added_p99_ms,
        row.first_token_p50_ms,
        row.first_token_added_p50_ms,
        row.cpu_ms,
    )
    return (row.target, str(row.concurrency), *(_number(value) for value in numbers), str(sum(row.errors.values())))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _line(cells: tuple[str, ...]) -> str:
    return cells[0].ljust(16) + "".join(cell.rjust(13) for cell in cells[1:])
