"""Reports over a long ledger: `python -m benchmarks.cost.ledger ROWS ROUNDS` fills the database of DATABASE_URL and times them.

A database that it filled before with as many rows is only timed.

The rows are a year of 20 agents with two keys each, a model and a fallback for each agent, 100,000 people, and a conversation for
every 5 rows, the same in every run. Some people come far more often than others, and few answers are many times as long as most, so
their costs differ as they do in life. They are written by SQL into the product's own table, and summed by its own `roll_up`, but for
the last thousand: a report must add those itself.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

DAYS: Final = 365
UNSUMMED: Final = 1000
_BATCH: Final = 500_000
_LONGEST_WAIT_S: Final = 600.0
_SEED: Final = 4711

_FILL: Final = """
    INSERT INTO observability_attempt (
        id, turn_id, number, kind, agent, version, key, subject_id, conversation_id, provider, model, request_id, started_at, deadline_at,
        settled_at, settled_xid, outcome, error_code, worst_prompt_tokens, worst_completion_tokens, prompt_tokens, cached_tokens,
        completion_tokens, is_estimated, input_usd, output_usd, cost_usd, saved_usd, latency_ms
    )
    SELECT id, id, 1, 'chat', 'agent-' || key / 2, 1, 'key-' || key, 1 + floor(100000 * power(whose, 3))::bigint, 1 + n / 5, 'vendor',
           'model-' || CASE WHEN n %% 20 = 0 THEN 'spare' ELSE (key %% 3)::text END, '', at, at,
           at, pg_current_xact_id()::text::bigint, CASE WHEN n %% 100 = 0 THEN 'failed' WHEN n %% 10 = 0 THEN 'cached' ELSE 'done' END,
           CASE WHEN n %% 100 = 0 THEN 'upstream-timeout' ELSE '' END, 4000, 8000, 900, 400, written, false, 0.25, 2,
           CASE WHEN n %% 10 = 0 THEN 0 ELSE usd END, CASE WHEN n %% 10 = 0 THEN usd ELSE 0 END, 900
    FROM generate_series(%s::bigint, %s::bigint) AS n, LATERAL (
        SELECT lpad(to_hex(n), 32, '0')::uuid AS id, %s::timestamptz + n * make_interval(secs => %s) AS at,
               abs(hashint8(n / 5) %% 40) AS key, (hashint8extended(n / 5, %s) & 1048575) / 1048576.0::float8 AS whose,
               (hashint8extended(n / 5, %s) & 1048575) / 1048576.0::float8 AS brevity,
               (hashint8extended(n, %s) & 1048575) / 1048576.0::float8 AS more
    ) AS drawn, LATERAL (SELECT 20 + floor(40 / (0.01 + brevity) * (0.5 + more))::int AS written) AS length,
    LATERAL (SELECT (900 * 0.25 + written * 2) / 1000000 AS usd) AS price
"""


def fill(rows: int, *, until: datetime) -> float:
    """Write `rows` rows that end at `until`, and sum them; return how long the summing took, in seconds."""
    from django.db import connection, transaction

    each_s = timedelta(days=DAYS).total_seconds() / rows
    drawn: list[Any] = [until - timedelta(days=DAYS), each_s, _SEED, _SEED + 1, _SEED + 2]
    summing_s = 0.0
    bounds = [*range(0, rows - UNSUMMED, _BATCH), rows - UNSUMMED]
    for begin, end in pairwise(bounds):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_FILL, [begin + 1, end, *drawn])
        summing_s += sum_up()
        print(f"... {end:,} rows", file=sys.stderr, flush=True)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FILL, [rows - UNSUMMED + 1, rows, *drawn])
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return summing_s


def sum_up() -> float:
    """Have all rows summed that are there; return how long that took, in seconds.

    Raises:
        TimeoutError: transactions elsewhere on the database server held it up.
    """
    from django.db import connection, transaction

    from observability.api import roll_up

    until = time.monotonic() + _LONGEST_WAIT_S
    took_s = 0.0
    while time.monotonic() < until:
        started = time.perf_counter()
        with transaction.atomic():
            roll_up()
        took_s += time.perf_counter() - started
        with connection.cursor() as cursor:
            cursor.execute("SELECT upto_xid > (SELECT max(settled_xid) FROM observability_attempt) FROM observability_rollupstate")
            if cursor.fetchone() == (True,):
                return took_s
        time.sleep(0.1)
    raise TimeoutError(f"The rows could not be summed within {_LONGEST_WAIT_S:.0f} s: long transactions elsewhere on this database server?")


def questions(today: date) -> Mapping[str, Callable[[], Any]]:
    """Return the reports that are timed, by what they tell."""
    from observability.api import Wanted, dearest, forecast_usd, list_failures, report_usage

    month = Wanted(first=today - timedelta(days=29), last=today)
    year = Wanted(first=today - timedelta(days=DAYS), last=today)
    keys = Wanted(first=month.first, last=today, keys=[f"key-{number}" for number in range(3)])
    half = replace(year, keys=[f"key-{number}" for number in range(20)])
    return {
        "30 days, in all": lambda: report_usage(month),
        "30 days, by day": lambda: report_usage(month, by=("day",)),
        "30 days, by agent": lambda: report_usage(month, by=("agent",)),
        "30 days, by key and model": lambda: report_usage(month, by=("key", "model")),
        "30 days, by day and agent, of three keys": lambda: report_usage(keys, by=("day", "agent")),
        "30 days, of one person": lambda: report_usage(Wanted(first=month.first, last=today, people=[4711])),
        "30 days, by user, of three keys": lambda: report_usage(keys, by=("user",), limit=10_000),
        "30 days, dearest conversations": lambda: dearest(month, by=("conversation", "agent"), limit=10),
        "30 days, dearest people": lambda: dearest(month, by=("user",), limit=10),
        "30 days, failures": lambda: list_failures(month),
        "a year, by day": lambda: report_usage(year, by=("day",)),
        "a year, by agent": lambda: report_usage(year, by=("agent",)),
        "a year, dearest conversations": lambda: dearest(year, by=("conversation", "agent"), limit=10),
        "a year, dearest conversations, of three keys": lambda: dearest(
            replace(year, keys=keys.keys), by=("conversation", "agent"), limit=10
        ),
        "a year, dearest conversations, of half of the keys": lambda: dearest(half, by=("conversation", "agent"), limit=10),
        "a year, dearest people": lambda: dearest(year, by=("user",), limit=10),
        "a year, dearest people, of three keys": lambda: dearest(replace(year, keys=keys.keys), by=("user",), limit=10),
        "forecast": lambda: forecast_usd(today),
    }


def _last_at(rows: int) -> datetime | None:
    """Return when the last row is of; None where there are fewer than `rows`."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT max(started_at) FROM observability_attempt HAVING count(*) >= %s", [rows])
        return next((last_at for (last_at,) in cursor.fetchall()), None)


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Fill the database, unless it is, and time every report."""
    from django.db import connection

    from observability.api import Wanted, report_usage

    until, summing_s = _last_at(rows), 0.0
    if until is None:
        until = datetime.now(UTC)
        summing_s = fill(rows, until=until)
    figures = []
    for name, ask in questions(until.date()).items():
        took = []
        for _ in range(rounds):
            started = time.perf_counter()
            ask()
            took.append((time.perf_counter() - started) * 1000)
        took.sort()
        figures.append({"report": name, "p50_ms": took[len(took) // 2], "p95_ms": took[min(len(took) - 1, len(took) * 95 // 100)]})
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), sum(cost_usd) FROM observability_attempt")
        counted, cost = cursor.fetchone() or (0, 0)
    [total] = report_usage(Wanted(first=until.date() - timedelta(days=DAYS), last=until.date()))
    return {"rows": counted, "summing_s": summing_s, "figures": figures, "is_exact": (total.attempts, total.cost_usd) == (counted, cost)}


if __name__ == "__main__":
    import django

    django.setup()
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
