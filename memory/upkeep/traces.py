"""Traces of turns that are older than their agent keeps them: what the model was sent, and what was done."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.db import connection

from memory.upkeep.memories import ROWS_AT_ONCE

_OLD: Final = "agent = %(agent)s AND created_at < %(before)s::timestamptz AND trace IS NOT NULL"
_COUNT: Final = f"SELECT count(*) FROM memory_turn WHERE {_OLD}"  # noqa: S608 - constants
_EMPTY: Final = f"""
    UPDATE memory_turn SET sent = NULL, trace = NULL
    WHERE id IN (SELECT id FROM memory_turn WHERE {_OLD} ORDER BY created_at LIMIT %(most)s FOR NO KEY UPDATE SKIP LOCKED)
"""  # noqa: S608 - constants


def clear_traces(agent: str, *, before: datetime, is_dry: bool) -> tuple[dict[str, int], bool]:
    """Empty the traces of an agent's turns from before `before`, at most `ROWS_AT_ONCE`, or count all of them.

    Returns:
        How many, and whether there may be more.
    """
    with connection.cursor() as cursor:
        cursor.execute(_COUNT if is_dry else _EMPTY, {"agent": agent, "before": before, "most": ROWS_AT_ONCE})
        [count] = (cursor.fetchone() or [0]) if is_dry else [cursor.rowcount]
    return {"traces": int(count)}, count == ROWS_AT_ONCE and not is_dry
