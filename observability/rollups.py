"""Sums of the ledger by hour and by day, kept up by the worker, so that reports are quick however long the ledger is.

What was summed is told by transaction numbers and not by times: an attempt that is settled by a transaction which is still open
is in no sum, and in the next one exactly once. Reports add what came since (`observability.usage`), so they are never behind.
"""

from __future__ import annotations

from typing import Final

from django.db import connection

# Transactions below the snapshot's xmin have all ended, so no attempt with a smaller number can appear any more.
_LOCK_STATE: Final = """
    INSERT INTO observability_rollupstate (id, upto_xid) VALUES (1, 0)
    ON CONFLICT (id) DO UPDATE SET upto_xid = observability_rollupstate.upto_xid
    RETURNING upto_xid
"""
_HORIZON: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_END_STATE: Final = "UPDATE observability_rollupstate SET upto_xid = %s, rolled_up_at = now() WHERE id = 1"
SUMS: Final = """
    count(*) AS attempts,
    count(*) FILTER (WHERE outcome IN ('failed', 'interrupted', 'orphaned')) AS failed,
    count(*) FILTER (WHERE outcome = 'cached') AS cached,
    coalesce(sum(prompt_tokens) FILTER (WHERE outcome <> 'cached'), 0)::bigint AS prompt_tokens,
    coalesce(sum(cached_tokens) FILTER (WHERE outcome <> 'cached'), 0)::bigint AS cached_tokens,
    coalesce(sum(completion_tokens) FILTER (WHERE outcome <> 'cached'), 0)::bigint AS completion_tokens,
    coalesce(sum(cost_usd), 0) AS cost_usd,
    coalesce(sum(saved_usd), 0) AS saved_usd,
    count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced
"""
MEASURES: Final = (
    "attempts",
    "failed",
    "cached",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost_usd",
    "saved_usd",
    "unpriced",
)
_ADDED: Final = ", ".join(f"{name} = sums.{name} + EXCLUDED.{name}" for name in MEASURES)
_COLUMNS: Final = ", ".join(MEASURES)
_ADD_HOURS: Final = f"""
    INSERT INTO observability_usagehour AS sums (hour, agent, key, kind, provider, model, {_COLUMNS})
    SELECT date_trunc('hour', started_at, 'UTC'), agent, key, kind, provider, model, {SUMS}
    FROM observability_attempt WHERE settled_xid >= %s AND settled_xid < %s
    GROUP BY 1, 2, 3, 4, 5, 6
    ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (hour, agent, key, kind, provider, model) DO UPDATE SET {_ADDED}
"""  # noqa: S608 - constants
_ADD_DAYS: Final = f"""
    INSERT INTO observability_usageday AS sums (day, agent, key, subject_id, kind, provider, model, {_COLUMNS})
    SELECT (started_at AT TIME ZONE 'UTC')::date, agent, key, subject_id, kind, provider, model, {SUMS}
    FROM observability_attempt WHERE settled_xid >= %s AND settled_xid < %s
    GROUP BY 1, 2, 3, 4, 5, 6, 7
    ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT (day, agent, key, subject_id, kind, provider, model) DO UPDATE SET {_ADDED}
"""  # noqa: S608 - constants


def roll_up() -> int:
    """Add to the sums what was settled since the last time; return how many rows of sums changed.

    Runs inside a transaction that the caller began; of several processes at once, one after the other does it.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_STATE)
        [since] = cursor.fetchone() or [0]
        # Only now: a snapshot from before the lock would not have seen what the process before summed.
        cursor.execute(_HORIZON)
        [upto] = cursor.fetchone() or [0]
        if upto <= since:
            return 0
        cursor.execute(_ADD_HOURS, [since, upto])
        changed = cursor.rowcount
        cursor.execute(_ADD_DAYS, [since, upto])
        changed += cursor.rowcount
        cursor.execute(_END_STATE, [upto])
    return int(changed)
