"""Sums of the ledger by hour and by day, kept up by the worker, so that reports are quick however long the ledger is.

What was summed is told by transaction numbers and not by times: an attempt that is settled by a transaction which is still open
is in no sum, and in the next one exactly once. Reports add what came since (`observability.usage`), so they are never behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog
from django.db import connection

from observability.bursts import run_burst
from observability.rounds import keep_doing

log = structlog.get_logger(__name__)

MEASURES: Final[Mapping[str, str]] = {
    "attempts": "count(*)",
    "turns": "count(*) FILTER (WHERE kind = 'chat' AND number = 1)",
    "failed": "count(*) FILTER (WHERE outcome IN ('failed', 'interrupted', 'orphaned'))",
    "cached": "count(*) FILTER (WHERE outcome = 'cached')",
    "routed": "count(*) FILTER (WHERE saved_by IN ('routing', 'budget'))",
    "prompt_tokens": "coalesce(sum(prompt_tokens) FILTER (WHERE outcome <> 'cached'), 0)::bigint",
    "cached_tokens": "coalesce(sum(cached_tokens) FILTER (WHERE outcome <> 'cached'), 0)::bigint",
    "completion_tokens": "coalesce(sum(completion_tokens) FILTER (WHERE outcome <> 'cached'), 0)::bigint",
    "trimmed_tokens": "coalesce(sum(trimmed_tokens), 0)::bigint",
    "cost_usd": "coalesce(sum(cost_usd), 0)",
    "saved_usd": "coalesce(sum(saved_usd), 0)",
    "saved_by_routing_usd": "coalesce(sum(saved_usd) FILTER (WHERE saved_by IN ('routing', 'budget')), 0)",
    "routing_cost_usd": "coalesce(sum(cost_usd) FILTER (WHERE kind = 'routing'), 0)",
    "saved_by_trimming_usd": "coalesce(sum(round(trimmed_tokens * input_usd / 1000000, 10)), 0)",
    "unpriced": "count(*) FILTER (WHERE cost_usd IS NULL)",
}
"""What is summed, and how each sum is made of attempts."""

DERIVED: Final[Mapping[str, str]] = {
    "hour": "date_trunc('hour', started_at, 'UTC')",
    "day": "(started_at AT TIME ZONE 'UTC')::date",
}
"""The columns of sums that attempts have under no name."""

_OF_MODEL: Final = ("agent", "key", "kind", "provider", "model")
TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "observability_usagehour": ("hour", *_OF_MODEL),
    "observability_usageday": ("day", *_OF_MODEL),
    "observability_usageperson": ("day", "subject_id", *_OF_MODEL),
    "observability_usageconversation": ("day", "conversation_id", "agent", "key"),
}
"""The tables of sums, each with what it is grouped by."""

TOTALS: Final[Mapping[str, str]] = {
    "observability_totalofperson": "subject_id",
    "observability_totalofconversation": "conversation_id",
}
"""The tables of what each person and conversation cost over all time, and from when to when, with the column that tells which."""

_EVERY_S: Final = 10.0
# So many attempts are summed by one transaction, about: within a second or two, however many there are.
_SLICE: Final = 50_000
IN_NO_SUM: Final = """
    settled_xid BETWEEN coalesce((SELECT upto_xid FROM observability_rollupstate WHERE id = 1), 0) AND 9223372036854775807
"""
"""Which attempts are in no sum yet. It has both bounds: of one alone the planner believes that it leaves a third of the ledger."""

_LOCK_STATE: Final = """
    INSERT INTO observability_rollupstate (id, upto_xid) VALUES (1, 0)
    ON CONFLICT (id) DO UPDATE SET upto_xid = observability_rollupstate.upto_xid
    RETURNING upto_xid, totals_upto_xid, xid_offset, totals_xid_offset
"""
# Transactions below the snapshot's xmin have all ended, so no attempt with a smaller number can appear any more.
_HORIZON: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_END_STATE: Final = """
    UPDATE observability_rollupstate
    SET upto_xid = %s, totals_upto_xid = %s, xid_offset = %s, totals_xid_offset = %s, rolled_up_at = now()
    WHERE id = 1
"""
_BEYOND_SLICE: Final = """
    SELECT settled_xid FROM observability_attempt WHERE settled_xid >= %s AND settled_xid < %s ORDER BY settled_xid OFFSET %s LIMIT 1
"""
# Whoever settles waits until it is known which numbers come next.
_LOCK_LEDGER: Final = "LOCK TABLE observability_attempt IN SHARE MODE"
_LAST_SETTLED: Final = "SELECT coalesce(max(settled_xid), 0) FROM observability_attempt"


def sums_of_attempts(columns: tuple[str, ...]) -> str:
    """Return what to select of attempts for a table of sums: `columns`, then the measures."""
    named = [f"{DERIVED[column]} AS {column}" if column in DERIVED else column for column in columns]
    return ", ".join([*named, *(f"{made} AS {name}" for name, made in MEASURES.items())])


def _statement_for(table: str, columns: tuple[str, ...]) -> str:
    places = ", ".join(str(place) for place in range(1, len(columns) + 1))
    return f"""
        INSERT INTO {table} AS sums ({", ".join([*columns, *MEASURES])})
        SELECT {sums_of_attempts(columns)} FROM observability_attempt WHERE settled_xid >= %s AND settled_xid < %s
        GROUP BY {places} ORDER BY {places}
        ON CONFLICT ({", ".join(columns)}) DO UPDATE SET {", ".join(f"{name} = sums.{name} + EXCLUDED.{name}" for name in MEASURES)}
    """  # noqa: S608 - constants


_ADD: Final = tuple(_statement_for(table, columns) for table, columns in TABLES.items())
_ADD_TO_TOTALS: Final = tuple(
    f"""
        INSERT INTO {table} AS total ({column}, cost_usd, first_day, last_day)
        SELECT {column}, {MEASURES["cost_usd"]}, min({DERIVED["day"]}), max({DERIVED["day"]})
        FROM observability_attempt WHERE settled_xid >= %s AND settled_xid < %s GROUP BY 1 ORDER BY 1
        ON CONFLICT ({column}) DO UPDATE SET cost_usd = total.cost_usd + EXCLUDED.cost_usd,
            first_day = least(total.first_day, EXCLUDED.first_day), last_day = greatest(total.last_day, EXCLUDED.last_day)
    """  # noqa: S608 - constants
    for table, column in TOTALS.items()
)


def roll_up() -> bool:
    """Add to the sums what was settled since the last time, a slice of it at most, and note when; tell whether there is more.

    Runs inside a transaction that the caller began; of several processes at once, one after the other does it.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_STATE)
        since, totals_since, offset, totals_offset = cursor.fetchone() or (0, 0, 0, 0)
        # Only now: a snapshot from before the lock would not have seen what the process before summed.
        last = _horizon(cursor) + offset
        if last < since:
            since, totals_since, last = 0, 0, _start_over(cursor)
            offset = last - _horizon(cursor)
        elif totals_since > since or totals_offset != offset:
            # A worker of the release before did that, who does not know totals.
            _clear(cursor, TOTALS)
            totals_since = 0
        upto, totals_upto = _end_of_slice(cursor, since, last), _end_of_slice(cursor, totals_since, last)
        _add(cursor, _ADD, since, upto)
        # Totals may be behind: they are younger than the other sums.
        _add(cursor, _ADD_TO_TOTALS, totals_since, totals_upto)
        cursor.execute(_END_STATE, [upto, totals_upto, offset, offset])
    if is_behind := min(upto, totals_upto) < last:
        log.info("the ledger is being summed", upto_transaction=min(upto, totals_upto), of_transactions=last)
    return is_behind


async def keep_summing(stopping: asyncio.Event) -> None:
    """Keep the sums up until `stopping` is set."""

    async def step() -> None:
        while await run_burst(roll_up) and not stopping.is_set():
            pass

    await keep_doing(stopping, step, every_s=_EVERY_S, what="summing the ledger", queue="sums")


def _horizon(cursor: Any) -> int:
    cursor.execute(_HORIZON)
    [xmin] = cursor.fetchone() or [0]
    return int(xmin)


def _end_of_slice(cursor: Any, since: int, last: int) -> int:
    """Return before which transaction a slice ends that begins with `since`: `last` at the latest. A transaction is never cut."""
    cursor.execute(_BEYOND_SLICE, [since, last, _SLICE])
    beyond = cursor.fetchone()
    return last if beyond is None else max(int(beyond[0]), since + 1)


def _add(cursor: Any, statements: Iterable[str], since: int, upto: int) -> None:
    for statement in statements if upto > since else ():
        cursor.execute(statement, [since, upto])


def _clear(cursor: Any, tables: Iterable[str]) -> None:
    for table in tables:
        cursor.execute(f"DELETE FROM {table}")  # noqa: S608 - constants


def _start_over(cursor: Any) -> int:
    """Empty all sums: this database was restored from a dump into a server that counts its transactions from the beginning.

    From now on numbers are higher than all that are in the ledger: return the first of them.
    """
    _clear(cursor, (*TABLES, *TOTALS))
    cursor.execute(_LOCK_LEDGER)
    cursor.execute(_LAST_SETTLED)
    [last] = cursor.fetchone() or [0]
    log.warning("sums of the ledger are made anew", reason="the database server counts its transactions from a lower number than before")
    return int(last) + 1
