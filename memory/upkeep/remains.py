"""What remains when nothing does: people without a conversation or a memory, and old rows about upkeep itself.

A pass looks for what earlier ones left empty, and not for what it empties itself, so that counting and deleting find the same.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection

from memory.isolation import act_for, stop_acting
from memory.upkeep.memories import ROWS_AT_ONCE

RUN_DAYS: Final = 90
"""How long finished passes are shown."""
# Whoever has only just come may be about to say something.
_NEW: Final = timedelta(hours=1)

_NOBODY: Final = """
    created_at < %(before)s
    AND NOT EXISTS (SELECT FROM memory_conversation WHERE subject_id = subject.id)
    AND NOT EXISTS (SELECT FROM memory_owner WHERE subject_id = subject.id)
"""
_COUNT_PEOPLE: Final = f"SELECT count(*) FROM memory_subject subject WHERE {_NOBODY}"  # noqa: S608 - constants
_DELETE_PEOPLE: Final = f"""
    DELETE FROM memory_subject
    WHERE id IN (SELECT id FROM memory_subject subject WHERE {_NOBODY} ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED)
"""  # noqa: S608 - constants
_NEXT_IDLE_OWNERS: Final = """
    SELECT id FROM memory_owner owner
    WHERE kind = 'person' AND created_at < %(before)s AND (busy_until IS NULL OR busy_until < now()) AND id > %(after)s
      AND NOT EXISTS (
          SELECT FROM memory_conversation conversation
          WHERE conversation.subject_id = owner.subject_id AND conversation.agent = owner.agent
      )
    ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED
"""
_HAVE_MEMORIES: Final = "SELECT DISTINCT owner_id FROM memory_passage WHERE owner_id = ANY(%s)"
_DELETE_OWNERS: Final = "DELETE FROM memory_owner WHERE id = ANY(%s)"
_COUNT_RUNS: Final = "SELECT count(*) FROM memory_upkeeprun WHERE finished_at < %(before)s"
_DELETE_RUNS: Final = "DELETE FROM memory_upkeeprun WHERE finished_at < %(before)s"


def clear_people(*, now: datetime, is_dry: bool) -> tuple[dict[str, int], bool]:
    """Delete people of whom there is nothing, at most `ROWS_AT_ONCE`, or count all of them.

    Returns:
        How many, and whether there may be more.
    """
    people = _change(_COUNT_PEOPLE if is_dry else _DELETE_PEOPLE, {"before": now - _NEW, "most": ROWS_AT_ONCE}, is_dry=is_dry)
    return {"people": people}, people == ROWS_AT_ONCE and not is_dry


def clear_owners(*, now: datetime, after: int, is_dry: bool) -> tuple[dict[str, int], tuple[int, bool]]:
    """Delete, or count, whose memories are all gone and who has no conversation that would bring new ones.

    Returns:
        How many, after which id to go on, and whether there is anything to go on to.
    """
    with connection.cursor() as cursor:
        cursor.execute(_NEXT_IDLE_OWNERS, {"before": now - _NEW, "after": after, "most": ROWS_AT_ONCE})
        idle = [id for (id,) in cursor.fetchall()]
        act_for(idle)
        cursor.execute(_HAVE_MEMORIES, [idle])
        kept = {id for (id,) in cursor.fetchall()}
        stop_acting()
        empty = [id for id in idle if id not in kept]
        if not is_dry:
            cursor.execute(_DELETE_OWNERS, [empty])
    return {"owners": len(empty)}, (idle[-1] if idle else after, len(idle) == ROWS_AT_ONCE)


def clear_runs(*, now: datetime, is_dry: bool) -> tuple[dict[str, int], None]:
    """Delete, or count, passes that ended more than `RUN_DAYS` ago."""
    statement = _COUNT_RUNS if is_dry else _DELETE_RUNS
    return {"passes": _change(statement, {"before": now - timedelta(days=RUN_DAYS)}, is_dry=is_dry)}, None


def _change(statement: str, parameters: dict[str, Any], *, is_dry: bool) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        if not is_dry:
            return int(cursor.rowcount)
        [count] = cursor.fetchone() or [0]
    return int(count)
