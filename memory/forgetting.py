"""Forgetting all memories of an owner: passages of every kind, their vectors and postings, and when they were recalled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import connection

from memory.elsewhere import SubjectErased, tell_stores
from memory.isolation import acting_for
from memory.models import MemoryOwner
from observability.api import run_burst

AT_ONCE: Final = 20_000
"""How many memories are deleted in one transaction. Where there are more, the bulk goes before, in several."""
_ROWS_AT_ONCE: Final = 50_000

_HAS_MANY: Final = "SELECT FROM memory_passage WHERE owner_id = ANY(%s) OFFSET %s LIMIT 1"
_DELETE_SLICE: Final = """
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE owner_id = ANY(%s) {order} LIMIT %s))
    RETURNING {text}
"""
_DELETE: Final = "DELETE FROM {table} WHERE owner_id = ANY(%s) RETURNING {text}"
# Vectors and postings before their passages: to find those of all of an owner's passages is quicker than those of each.
# Facts before what they were read from, which would take them along uncounted.
_TABLES: Final = (
    ("words", {"table": "memory_posting", "order": "", "text": "NULL"}),
    ("vectors", {"table": "memory_sentence", "order": "", "text": "NULL"}),
    ("vectors", {"table": "memory_widesentence", "order": "", "text": "NULL"}),
    ("recalled", {"table": "memory_recalled", "order": "", "text": "NULL"}),
    ("memories", {"table": "memory_passage", "order": "ORDER BY source_id", "text": "text"}),
)
# What waits to be remembered, or to be read by a model, was said before; so was what is being answered.
_STOP_WAITING: Final = """
    UPDATE memory_turn turn
    SET remembered_at = CASE WHEN turn.remember THEN coalesce(turn.remembered_at, clock_timestamp()) END, facts_due_at = NULL
    FROM memory_conversation conversation
    JOIN memory_owner owner ON owner.subject_id = conversation.subject_id AND owner.agent = conversation.agent
    WHERE owner.id = %s AND turn.conversation_id = conversation.id
      AND ((turn.remember AND turn.remembered_at IS NULL) OR turn.facts_due_at IS NOT NULL)
"""


@dataclass(slots=True)
class Gone:
    """What was deleted: how many rows by kind, and the memories' texts."""

    counts: Counter[str] = field(default_factory=Counter)
    texts: dict[str, None] = field(default_factory=dict)

    def add(self, other: Gone) -> None:
        self.counts.update(other.counts)
        self.texts.update(other.texts)


async def forget_all(owner_id: int) -> int:
    """Forget what is remembered of an owner; return how many memories that were. The conversations stay.

    What was said so far is not remembered again, be it that a worker has it in hand. Other stores forget it, too.

    Raises:
        DatabaseError: the database cannot be reached.
    """
    gone = Gone()
    while True:
        some, is_last = await run_burst(_forget_some, owner_id)
        gone.add(some)
        if is_last:
            break
    if gone.texts:
        await tell_stores(SubjectErased(owner_ids=(owner_id,), texts=tuple(gone.texts)))
    return gone.counts["memories"]


def delete_slice(cursor: Any, owner_ids: Sequence[int], gone: Gone) -> bool:
    """Delete some rows where owners have more memories than one transaction takes; return whether there were.

    The caller began the transaction, locked the owners, and acts for them.
    """
    cursor.execute(_HAS_MANY, [owner_ids, AT_ONCE])
    return cursor.fetchone() is not None and any(
        _delete(cursor, _DELETE_SLICE.format(**table), [owner_ids, _ROWS_AT_ONCE], kind=kind, gone=gone) for kind, table in _TABLES
    )


def delete_memories(cursor: Any, owner_ids: Sequence[int], gone: Gone) -> None:
    """Delete all memories of owners; as for `delete_slice`."""
    for kind, table in _TABLES:
        _delete(cursor, _DELETE.format(**table), [owner_ids], kind=kind, gone=gone)


def _delete(cursor: Any, statement: str, parameters: list[Any], *, kind: str, gone: Gone) -> int:
    cursor.execute(statement, parameters)
    gone.counts[kind] += cursor.rowcount
    if kind == "memories":
        gone.texts.update((text, None) for (text,) in cursor.fetchall())
    return int(cursor.rowcount)


def _forget_some(owner_id: int) -> tuple[Gone, bool]:
    gone = Gone()
    own = MemoryOwner.objects.select_for_update().filter(pk=owner_id)
    if not own:
        return gone, True
    with connection.cursor() as cursor:
        with acting_for([owner_id]):
            if delete_slice(cursor, [owner_id], gone):
                return gone, False
            delete_memories(cursor, [owner_id], gone)
        cursor.execute(_STOP_WAITING, [owner_id])
    own.update(user_name="", agent_name="")
    return gone, True
