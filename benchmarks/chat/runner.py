"""Drives every target in turns, and what came of it as plain figures."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import psutil

from . import cores, wire
from .load import Job, Result
from .processes import LoadProcess, UpstreamProcess

CONCURRENCIES: Final = (1, 16, 64, 256)
OPEN_STREAMS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Target:
    """Somebody to drive. `process` is None where it runs elsewhere: then its processor time is unknown."""

    name: str
    shape: wire.Shape
    url: str
    model: str = ""
    key: str = ""
    process: psutil.Process | None = None


@dataclass(frozen=True)
class Scenario:
    """One way of asking. `chunk_ms` spreads a stream over time; 0 sends it in one piece."""

    stream: bool
    delay_ms: int
    chunk_ms: int = 0

    @property
    def name(self) -> str:
        kind = f"{wire.CHUNKS}-chunk stream" if self.stream else "JSON"
        pace = f", {self.chunk_ms} ms a chunk" if self.chunk_ms else ""
        return f"{kind}, upstream {self.delay_ms} ms{pace}"


SCENARIOS: Final = [Scenario(stream, delay_ms) for delay_ms in (0, 50) for stream in (False, True)] + [Scenario(True, 0, 10)]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured."""

    rounds: int
    seconds: float
    concurrencies: Sequence[int] = CONCURRENCIES
    max_requests: int = 20_000


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Medians over the rounds. `added` is against calling the upstream directly in the same round. Times in milliseconds."""

    target: str
    scenario: str
    concurrency: int
    requests_per_s: float | None
    p50_ms: float | None
    p99_ms: float | None
    added_p50_ms: float | None
    added_p99_ms: float | None
    first_token_p50_ms: float | None
    first_token_added_p50_ms: float | None
    cpu_ms: float | None
    """Processor time of the target's processes for each reply."""
    replies: int
    errors: dict[str, int]


@dataclass
class _Cell:
    """What the rounds of one target, scenario and concurrency gave."""

    results: list[Result] = field(default_factory=list)
    cpu_s: list[float | None] = field(default_factory=list)


class Runner:
    """Takes the upstream itself and the targets in turns through every scenario.

    Args:
        direct: the upstream itself, called like a peer; what the others add is measured against it.
        targets: who is driven after it, in this order, in each round.
    """

    def __init__(
        self, *, upstream: UpstreamProcess, load: LoadProcess, direct: Target, targets: Sequence[Target], tell: Callable[[str], None]
    ) -> None:
        self._upstream = upstream
        self._load = load
        self._direct = direct
        self._targets = [direct, *targets]
        self._tell = tell
        self._jobs = 0
        self.acknowledged: defaultdict[str, int] = defaultdict(int)
        """How many correct replies each target gave in all, warming up included."""

    def measure(self, extent: Extent) -> list[Figures]:
        """Run everything and return the medians."""
        self.warm_up()
        found: list[Figures] = []
        for scenario in SCENARIOS:
            concurrencies = [number for number in extent.concurrencies if not scenario.chunk_ms or number in (16, 64)]
            for concurrency in concurrencies:
                found += self._measure_cell(scenario, concurrency, extent)
        return found

    def warm_up(self) -> None:
        """Let every target open its connections and compile what it compiles."""
        self._upstream.pace(delay_ms=0)
        for target in self._targets:
            for stream in (False, True):
                self._drive(target, stream=stream, concurrency=8, seconds=5, max_requests=100)

    def open_streams(self, target: Target, *, count: int = OPEN_STREAMS) -> float | None:
        """Return the bytes (USS) that each of `count` slow open streams costs the target's processes."""
        if target.process is None:
            return None
        self._upstream.pace(delay_ms=0, chunk_ms=150)
        idle, _ = cores.memory_bytes(target.process)
        job = self._job(target, stream=True, concurrency=count, seconds=30, max_requests=count, announce_when_open=True)
        self._load.begin(job)
        self._load.wait_until_open()
        busy, _ = cores.memory_bytes(target.process)
        self._note(target, self._load.result())
        return (busy - idle) / count

    def _measure_cell(self, scenario: Scenario, concurrency: int, extent: Extent) -> Iterator[Figures]:
        self._tell(f"{scenario.name}, {concurrency} at once")
        self._upstream.pace(delay_ms=scenario.delay_ms, chunk_ms=scenario.chunk_ms)
        cells: defaultdict[str, _Cell] = defaultdict(_Cell)
        for _ in range(extent.rounds):
            for target in self._targets:
                before = cores.cpu_s(target.process) if target.process else 0
                result = self._drive(
                    target, stream=scenario.stream, concurrency=concurrency, seconds=extent.seconds, max_requests=extent.max_requests
                )
                used = cores.cpu_s(target.process) - before if target.process else None
                cells[target.name].results.append(result)
                cells[target.name].cpu_s.append(used)
        direct = cells[self._direct.name].results
        return (_figures(target.name, scenario, concurrency, cells[target.name], direct) for target in self._targets)

    def _drive(self, target: Target, *, stream: bool, concurrency: int, seconds: float, max_requests: int) -> Result:
        job = self._job(target, stream=stream, concurrency=concurrency, seconds=seconds, max_requests=max_requests)
        return self._note(target, self._load.drive(job))

    def _note(self, target: Target, result: Result) -> Result:
        self.acknowledged[target.name] += result.replies
        return result

    def _job(
        self, target: Target, *, stream: bool, concurrency: int, seconds: float, max_requests: int, announce_when_open: bool = False
    ) -> Job:
        self._jobs += 1
        url = urlsplit(target.url)
        return Job(
            host=url.hostname or "",
            port=url.port or 80,
            path=url.path,
            shape=target.shape,
            model=target.model,
            key=target.key,
            session=f"job{self._jobs}",
            stream=stream,
            concurrency=concurrency,
            seconds=seconds,
            max_requests=max_requests,
            announce_when_open=announce_when_open,
        )


def _figures(name: str, scenario: Scenario, concurrency: int, cell: _Cell, direct: Sequence[Result]) -> Figures:
    results = cell.results
    errors: defaultdict[str, int] = defaultdict(int)
    for result in results:
        for kind, count in result.errors.items():
            errors[kind] += count
    return Figures(
        target=name,
        scenario=scenario.name,
        concurrency=concurrency,
        requests_per_s=_median([result.replies / result.elapsed_s for result in results if result.elapsed_s]),
        p50_ms=_median([result.p50_ms for result in results]),
        p99_ms=_median([result.p99_ms for result in results]),
        added_p50_ms=_median([_less(mine.p50_ms, theirs.p50_ms) for mine, theirs in zip(results, direct, strict=True)]),
        added_p99_ms=_median([_less(mine.p99_ms, theirs.p99_ms) for mine, theirs in zip(results, direct, strict=True)]),
        first_token_p50_ms=_median([result.first_p50_ms for result in results]) if scenario.stream else None,
        first_token_added_p50_ms=_median(
            [_less(mine.first_p50_ms, theirs.first_p50_ms) for mine, theirs in zip(results, direct, strict=True)]
        )
        if scenario.stream
        else None,
        cpu_ms=_median([used * 1000 / result.replies for used, result in zip(cell.cpu_s, results, strict=True) if used and result.replies]),
        replies=sum(result.replies for result in results),
        errors=dict(errors),
    )


def _less(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
