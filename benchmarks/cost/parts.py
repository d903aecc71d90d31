"""The four measurements: each starts what it needs, takes its parties in turns, and returns plain figures."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import psycopg
import redis

from benchmarks.chat import cores, wire
from benchmarks.chat.load import Job, Result
from benchmarks.chat.processes import PROJECT_DIR, LoadProcess, ServerProcess, UpstreamProcess, affinity, server_environment
from benchmarks.chat.storage import AGENT, Storage, fresh_storage, redis_process

from . import world

PARTS: Final = ("reports", "race", "cached", "protection")
CALLERS: Final = 64
_RACES: Final = 5
_CALL_USD: Final = Decimal((20 + wire.CHUNKS) * world.USD_PER_MILLION) / 1_000_000
_BARE_KEY: Final = "benchmark:bare"  # as in `bare`, which configures Django where it is imported


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured."""

    rounds: int
    seconds: float
    report_rounds: int


class Field:
    """Who takes part: the upstream, the load, and the servers that are asked for."""

    def __init__(self, stack: ExitStack, *, database_url: str, redis_url: str) -> None:
        self._stack = stack
        self._database_url, self._redis_url = database_url, redis_url
        split = cores.available()
        self.server_core = split[0] if split else None
        self.other_core = split[1] if split else None
        stack.enter_context(affinity(self.other_core))
        self.upstream = UpstreamProcess(0)
        stack.callback(self.upstream.stop)
        self._load = LoadProcess()
        stack.callback(self._load.stop)
        self._environment = server_environment(database_url=database_url, redis_url=redis_url)
        self._jobs = itertools.count(1)

    def storage(self, *, with_world: bool) -> Storage:
        """Return a fresh database; `with_world`: with limits, budgets, prices, and agents that they are for."""
        storage = self._stack.enter_context(fresh_storage(self._database_url, self._environment, upstream_url=self.upstream.base_url))
        stores = [found for found in (storage.process(), redis_process(self._redis_url)) if found]
        self._stack.enter_context(cores.pinned_where_possible(stores, self.other_core))
        if with_world:
            command = [sys.executable, "-m", "benchmarks.cost.world"]
            subprocess.run(command, check=True, cwd=PROJECT_DIR, env=storage.environment)
        return storage

    def server(self, storage: Storage) -> ServerProcess:
        with affinity(self.server_core):
            server = ServerProcess(storage.environment)
        self._stack.callback(server.stop)
        return server

    def bare(self) -> ServerProcess:
        """Start the bare view, with its answer in Redis."""
        with redis.Redis.from_url(self._redis_url) as client:
            client.set(_BARE_KEY, json.dumps({"reply": wire.TEXT}))
            self._stack.callback(_forget, self._redis_url)
        with affinity(self.server_core):
            server = ServerProcess(self._environment, application="benchmarks.cost.bare:application")
        self._stack.callback(server.stop)
        return server

    def drive(self, server: ServerProcess, agent: str, **job: Any) -> Result:
        given = {"concurrency": CALLERS, "max_requests": 1_000_000, "message": "", **job}
        return self._load.drive(
            Job(
                host="127.0.0.1",
                port=server.port,
                path=f"/api/chat/{agent}",
                shape="chat",
                session=f"job{next(self._jobs)}",
                stream=False,
                **given,
            )
        )


def run(parts: Sequence[str], *, rows: int, extent: Extent, database_url: str, redis_url: str) -> dict[str, Any]:
    """Measure `parts` and return what was found, by part."""
    found: dict[str, Any] = {}
    for part in parts:
        print(f"... {part}", file=sys.stderr, flush=True)
        with ExitStack() as stack:
            field = Field(stack, database_url=database_url, redis_url=redis_url)
            match part:
                case "reports":
                    found[part] = measure_reports(field, rows=rows, rounds=extent.report_rounds)
                case "race":
                    found[part] = measure_race(field)
                case "cached":
                    found[part] = measure_cached(field, extent)
                case _:
                    found[part] = measure_protection(field, extent)
    return found


def measure_reports(field: Field, *, rows: int, rounds: int) -> Mapping[str, Any]:
    """Time reports over a ledger of `rows` rows."""
    storage = field.storage(with_world=False)
    command = [sys.executable, "-m", "benchmarks.cost.ledger", str(rows), str(rounds)]
    done = subprocess.run(command, check=True, cwd=PROJECT_DIR, env=storage.environment, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_race(field: Field) -> Mapping[str, Any]:
    """Let 64 callers at once spend a budget that is enough for a dozen calls, again and again."""
    storage = field.storage(with_world=True)
    server = field.server(storage)
    field.upstream.pace(delay_ms=20)
    before = field.upstream.calls()
    results = [field.drive(server, world.RACING, seconds=60, max_requests=2 * CALLERS) for _ in range(_RACES)]
    calls = field.upstream.calls() - before
    with psycopg.connect(storage.url) as connection:
        row = connection.execute(
            "SELECT spent_usd, reserved_usd, (SELECT sum(cost_usd) FROM observability_attempt WHERE agent = %s)"
            " FROM observability_budgetperiod JOIN observability_budget budget ON budget.id = budget_id WHERE budget.name = 'race'",
            [world.RACING],
        ).fetchone()
    assert row is not None
    spent, reserved, ledger = row
    answered = sum(result.replies for result in results)
    return {
        "limit_usd": str(world.RACE_USD),
        "spent_usd": str(spent.normalize()),
        "reserved_usd": str(reserved.normalize()),
        "ledger_usd": str(ledger.normalize()),
        "upstream_usd": str((_CALL_USD * calls).normalize()),
        "overshoot_usd": str(max(Decimal(0), max(spent, ledger, _CALL_USD * calls) - world.RACE_USD).normalize()),
        "answered": answered,
        "upstream_calls": calls,
        "refused": _sum_errors(results),
    }


def measure_cached(field: Field, extent: Extent) -> Mapping[str, Any]:
    """Drive cached replies and the bare view in turns, 64 at once, each request in a session of its own."""
    storage = field.storage(with_world=True)
    ours, bare = field.server(storage), field.bare()
    for server, agent in ((ours, world.PROTECTED), (bare, "bare")):
        field.drive(server, agent, seconds=5, max_requests=500, concurrency=8, message="Warm up.")
    stored = storage.turns(world.PROTECTED).get("done", 0)
    before = field.upstream.calls()
    rounds: dict[str, list[Result]] = {"ours": [], "bare": []}
    for _ in range(extent.rounds):
        rounds["ours"].append(field.drive(ours, world.PROTECTED, seconds=extent.seconds, message="What are your opening hours?"))
        rounds["bare"].append(field.drive(bare, "bare", seconds=extent.seconds, message="What are your opening hours?"))
    ours_per_s, bare_per_s = (statistics.median(each.replies / each.elapsed_s for each in rounds[name]) for name in ("ours", "bare"))
    return {
        "ours_per_s": ours_per_s,
        "bare_per_s": bare_per_s,
        "ratio": ours_per_s / bare_per_s,
        "ours_p50_ms": statistics.median(each.p50_ms or 0 for each in rounds["ours"]),
        "bare_p50_ms": statistics.median(each.p50_ms or 0 for each in rounds["bare"]),
        "replies": sum(each.replies for each in rounds["ours"]),
        "stored": storage.turns(world.PROTECTED).get("done", 0) - stored,
        "upstream_calls": field.upstream.calls() - before,
        "errors": _sum_errors([*rounds["ours"], *rounds["bare"]]),
    }


def measure_protection(field: Field, extent: Extent) -> Mapping[str, Any]:
    """Drive uncached calls with and without limits, budgets and cache, in turns."""
    servers = {
        "without": (field.server(field.storage(with_world=False)), AGENT),
        "with": (field.server(field.storage(with_world=True)), world.PROTECTED),
    }
    figures, errors = [], []
    for server, agent in servers.values():
        field.drive(server, agent, seconds=5, max_requests=200, concurrency=8)
    for delay_ms, concurrency in ((0, 1), (0, 16), (50, 16), (50, 64)):
        field.upstream.pace(delay_ms=delay_ms)
        rounds: dict[str, list[Result]] = {"without": [], "with": []}
        for _ in range(extent.rounds):
            for name, (server, agent) in servers.items():
                rounds[name].append(field.drive(server, agent, seconds=extent.seconds, concurrency=concurrency))
        without, protected = (statistics.median(each.p50_ms or 0 for each in rounds[name]) for name in ("without", "with"))
        figures.append(
            {
                "upstream_ms": delay_ms,
                "at_once": concurrency,
                "without_p50_ms": without,
                "with_p50_ms": protected,
                "added_p50_ms": protected - without,
            }
        )
        errors += [*rounds["without"], *rounds["with"]]
    return {"figures": figures, "errors": _sum_errors(errors)}


def _sum_errors(results: Sequence[Result]) -> dict[str, int]:
    found: dict[str, int] = {}
    for result in results:
        for kind, count in result.errors.items():
            found[kind] = found.get(kind, 0) + count
    return found


def _forget(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.delete(_BARE_KEY)
