"""Conversations that are over: without a turn for longer than their agent keeps them.

They go with their turns, summaries and what was remembered of them word by word. Facts that were read from them stay, and so
does a turn of which somebody pinned a memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.backends.utils import CursorWrapper

from memory.isolation import act_for, stop_acting
from memory.upkeep.memories import ROWS_AT_ONCE, delete_memories

CONVERSATIONS_AT_ONCE: Final = 100

_OVER: Final = "agent = %(agent)s AND last_turn_at < %(before)s::timestamptz"
_COUNT: Final = f"SELECT count(*) FROM memory_conversation WHERE {_OVER}"  # noqa: S608 - constants
_NEXT: Final = f"SELECT id FROM memory_conversation WHERE {_OVER} AND id > %(after)s ORDER BY id LIMIT %(most)s"  # noqa: S608 - constants
# Whoever opens a turn meanwhile waits for this lock, in this order; where they came first, the conversation is not over.
_LOCK: Final = f"SELECT id FROM memory_conversation WHERE {_OVER} AND id = ANY(%(ids)s) ORDER BY owner, agent, session_id FOR UPDATE"  # noqa: S608 - constants
_OWNERS: Final = """
    SELECT owner.id FROM memory_owner owner
    WHERE (owner.agent, owner.subject_id) IN (SELECT agent, subject_id FROM memory_conversation WHERE id = ANY(%s))
"""
# As those lock who write memories, who then lock the turns.
_LOCK_OWNERS: Final = "SELECT FROM memory_owner WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
# What their turns recalled may have been an agent's own memory, or shared.
_COMMON_OWNERS: Final = "SELECT id FROM memory_owner WHERE kind <> 'person'"
_PINNED: Final = """
    SELECT DISTINCT turn_id FROM memory_passage
    WHERE owner_id = ANY(%s) AND origin = 'turn' AND session = ANY(%s) AND pinned_at IS NOT NULL
"""
_TURNS: Final = (
    "SELECT id FROM memory_turn WHERE conversation_id = ANY(%s) AND id <> ALL(%s::uuid[]) ORDER BY conversation_id, seq LIMIT %s"
)
_LOCK_TURNS: Final = f"{_TURNS} FOR UPDATE"
_MEMORIES: Final = "SELECT id FROM memory_passage WHERE owner_id = ANY(%s) AND origin = 'turn' AND turn_id = ANY(%s::uuid[])"
_FREE_FACTS: Final = """
    UPDATE memory_passage SET turn_id = NULL WHERE owner_id = ANY(%s) AND origin <> 'turn' AND turn_id = ANY(%s::uuid[])
"""
_DELETE_RECALLS: Final = "DELETE FROM memory_recalled WHERE owner_id = ANY(%s) AND turn_id = ANY(%s::uuid[])"
_DELETE_TURNS: Final = "DELETE FROM memory_turn WHERE id = ANY(%s::uuid[])"
_DELETE_SUMMARIES: Final = "DELETE FROM memory_summary WHERE conversation_id = ANY(%s)"
_DELETE_EMPTY: Final = """
    DELETE FROM memory_conversation conversation
    WHERE id = ANY(%s) AND NOT EXISTS (SELECT FROM memory_turn turn WHERE turn.conversation_id = conversation.id)
"""
_FORGET_SUMMARY: Final = """
    UPDATE memory_conversation SET summary = '', summarised_seq = 0, summary_due = false WHERE id = ANY(%s) AND summarised_seq > 0
"""
_COUNT_EMPTIED: Final = """
    SELECT count(*) FROM unnest(%s::bigint[]) AS ended (id)
    WHERE NOT EXISTS (SELECT FROM memory_turn WHERE conversation_id = ended.id AND memory_turn.id = ANY(%s::uuid[]))
"""


def count_over(agent: str, *, before: datetime) -> int:
    """Return how many of the agent's conversations had their last turn before `before`."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"agent": agent, "before": before})
        [count] = cursor.fetchone() or [0]
    return int(count)


def next_over(agent: str, *, before: datetime, after: int) -> list[int]:
    """Return the next of them in order of their ids, at most `CONVERSATIONS_AT_ONCE`."""
    with connection.cursor() as cursor:
        cursor.execute(_NEXT, {"agent": agent, "before": before, "after": after, "most": CONVERSATIONS_AT_ONCE})
        return _column(cursor)


def count_ended(ids: Sequence[int]) -> tuple[dict[str, int], bool]:
    """Return what `end_conversations` would return of these in the end."""
    with connection.cursor() as cursor:
        owners, pinned = _act_for_people(cursor, ids)
        cursor.execute(_TURNS, [list(ids), pinned, None])
        turns = _column(cursor)
        cursor.execute(_MEMORIES, [owners, turns])
        memories = len(cursor.fetchall())
        stop_acting()
        cursor.execute(_COUNT_EMPTIED, [list(ids), pinned])
        [emptied] = cursor.fetchone() or [0]
    return {"conversations": int(emptied), "turns": len(turns), "memories_of_conversations": memories}, False


def end_conversations(ids: Sequence[int], *, agent: str, before: datetime) -> tuple[dict[str, int], bool]:
    """Delete up to `ROWS_AT_ONCE` turns of those that are still over, and such as have none left.

    Returns:
        How many rows were deleted, by kind, and whether there are more turns to delete.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, {"agent": agent, "before": before, "ids": list(ids)})
        over = _column(cursor)
        owners, pinned = _act_for_people(cursor, over)
        cursor.execute(_LOCK_OWNERS, [owners])
        cursor.execute(_LOCK_TURNS, [over, pinned, ROWS_AT_ONCE])
        turns: list[UUID] = _column(cursor)
        memories = _delete_what_refers_to(cursor, turns, owners=owners)
        stop_acting()
        cursor.execute(_DELETE_TURNS, [turns])
        goes_on = len(turns) == ROWS_AT_ONCE
        ended = 0 if goes_on else _delete_conversations(cursor, over)
    return {"conversations": ended, "turns": len(turns), "memories_of_conversations": memories}, goes_on


def _act_for_people(cursor: CursorWrapper, conversations: Sequence[int]) -> tuple[list[int], list[UUID]]:
    """Act for the people of `conversations`; return whose memories they are, and the turns that a pin keeps."""
    cursor.execute(_OWNERS, [list(conversations)])
    owners = _column(cursor)
    act_for(owners)
    cursor.execute(_PINNED, [owners, list(conversations)])
    return owners, _column(cursor)


def _delete_what_refers_to(cursor: CursorWrapper, turns: Sequence[UUID], *, owners: Sequence[int]) -> int:
    """Delete the memories of `turns` and what they recalled, and part facts from them; return how many memories it were."""
    cursor.execute(_FREE_FACTS, [list(owners), list(turns)])
    cursor.execute(_MEMORIES, [list(owners), list(turns)])
    memories = delete_memories(_column(cursor), owners=owners)
    cursor.execute(_COMMON_OWNERS)
    everybody = [*owners, *_column(cursor)]
    act_for(everybody)
    cursor.execute(_DELETE_RECALLS, [everybody, list(turns)])
    return memories


def _delete_conversations(cursor: CursorWrapper, ids: Sequence[int]) -> int:
    """Delete the summaries of these and those that have no turn; return how many the latter were."""
    cursor.execute(_DELETE_SUMMARIES, [list(ids)])
    cursor.execute(_DELETE_EMPTY, [list(ids)])
    ended = int(cursor.rowcount)
    cursor.execute(_FORGET_SUMMARY, [list(ids)])
    return ended


def _column(cursor: CursorWrapper) -> list[Any]:
    return [value for (value,) in cursor.fetchall()]
