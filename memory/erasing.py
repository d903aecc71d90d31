"""Erasing a person: everything that is kept about them, with every agent, for good; a receipt without content remains.

A conversation that goes on meanwhile brings nothing back. Erasing locks the person's conversations, then the person, then
their memories' owners, then their turns. Whoever stores a turn or a memory needs one of these locks, and afterwards finds no
row to write to: a running turn ends without a trace, and a worker's passages are dropped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from django.db import connection
from uuid_utils.compat import uuid7

from memory.elsewhere import PENDING, Outcome, SubjectErased, keep_telling, stores, tell_stores
from memory.forgetting import Gone, delete_memories, delete_slice
from memory.isolation import acting_for
from memory.models import Erasure
from memory.people import find_subject
from memory.receipts import Receipt, confirm_entries, receipt_of, reference_to
from observability.api import run_burst

log = structlog.get_logger(__name__)

# In the order in which turns are opened, so that the two never wait for each other.
_LOCK_CONVERSATIONS: Final = "SELECT id FROM memory_conversation WHERE subject_id = %s ORDER BY owner, agent, session_id FOR UPDATE"
_LOCK_SUBJECT: Final = "SELECT owner, name FROM memory_subject WHERE id = %s FOR UPDATE"
_LOCK_OWNERS: Final = "SELECT id FROM memory_owner WHERE subject_id = %s ORDER BY id FOR UPDATE"
# A turn that ends at this moment is waited for: it may just be storing what it recalled.
_LOCK_TURNS: Final = """
    SELECT turn.id FROM memory_turn turn JOIN memory_conversation conversation ON conversation.id = turn.conversation_id
    WHERE conversation.subject_id = %s ORDER BY turn.id FOR UPDATE OF turn
"""
_FOR_EVERYBODY: Final = "SELECT id FROM memory_owner WHERE kind <> 'person'"
# What an agent knows for everybody may have been recalled for this person, too.
_DELETE_RECALLED: Final = """
    DELETE FROM memory_recalled WHERE turn_id IN (
        SELECT turn.id FROM memory_turn turn JOIN memory_conversation conversation ON conversation.id = turn.conversation_id
        WHERE conversation.subject_id = %s
    )
"""
_DELETE_SUMMARIES: Final = """
    DELETE FROM memory_summary USING memory_conversation conversation
    WHERE conversation.id = memory_summary.conversation_id AND conversation.subject_id = %s
"""
_DELETE_TURNS: Final = """
    DELETE FROM memory_turn USING memory_conversation conversation
    WHERE conversation.id = memory_turn.conversation_id AND conversation.subject_id = %s
    RETURNING memory_turn.id, message, reply
"""
_DELETE_OWNERS: Final = "DELETE FROM memory_owner WHERE subject_id = %s RETURNING user_name, agent_name"
_DELETE_CONVERSATIONS: Final = "DELETE FROM memory_conversation WHERE subject_id = %s RETURNING agent, session_id"
_DELETE_SUBJECT: Final = "DELETE FROM memory_subject WHERE id = %s"
KINDS: Final = ("conversations", "turns", "summaries", "memories", "vectors", "words", "recalled")
"""What receipts count, beside the other stores' entries."""


@dataclass(slots=True)
class _Erased(Gone):
    """What a transaction deleted of a person. Without `receipt` there is more to delete."""

    owner_ids: tuple[int, ...] = ()
    sessions: tuple[tuple[str, str], ...] = ()
    turn_ids: tuple[UUID, ...] = ()
    names: tuple[str, ...] = ()
    subject: tuple[str, str] | None = None
    receipt: Erasure | None = None


async def erase(subject_id: int, *, actor: str) -> Receipt:
    """Erase the person `subject_id`: conversations, turns, summaries, memories of every kind, and what other stores hold.

    Returns once all of it is gone from the database, and the other stores confirmed or failed three times. Whoever is not
    there gets a receipt with zeros. Broken off, it may be called again.

    Raises:
        DatabaseError: the database cannot be reached.
    """
    return await _erase(subject_id, reference="", actor=actor)


async def erase_user(owner: str, name: str, *, actor: str) -> Receipt:
    """As `erase`, for the person whom the key owner `owner` calls `name`."""
    subject_id = await run_burst(find_subject, owner, name)
    return await _erase(subject_id, reference=reference_to(owner, name), actor=actor)


async def _erase(subject_id: int | None, *, reference: str, actor: str) -> Receipt:
    started = time.monotonic()
    total = Gone(Counter(dict.fromkeys(KINDS, 0)))
    while True:
        gone = await run_burst(_erase_some, subject_id, reference=reference, actor=actor)
        total.add(gone)
        if gone.receipt is not None:
            break
    row, erased = gone.receipt, _event(gone, total.texts)
    outcomes: Mapping[str, Outcome] = {}
    if erased is not None:
        outcomes = await tell_stores(erased)
    row.counts = {**total.counts, **outcomes}
    row.took_ms = round((time.monotonic() - started) * 1000)
    await run_burst(row.save, update_fields=["counts", "took_ms"])
    receipt = receipt_of(row)
    if erased is not None:
        for name in receipt.pending:
            keep_telling(erased, name=name, confirm=partial(confirm_entries, row.pk, name))
    log.info("person erased", erasure=str(receipt.id), actor=actor, took_ms=receipt.took_ms, pending=receipt.pending)
    return receipt


def _event(gone: _Erased, texts: Iterable[str]) -> SubjectErased | None:
    if gone.subject is None:
        return None
    owner, name = gone.subject
    return SubjectErased(
        owner=owner,
        name=name,
        owner_ids=gone.owner_ids,
        sessions=gone.sessions,
        turn_ids=gone.turn_ids,
        names=gone.names,
        texts=tuple(texts),
    )


def _erase_some(subject_id: int | None, *, reference: str, actor: str) -> _Erased:
    """Delete a person, or the bulk of a large one's memories, in a transaction that the caller began."""
    gone = _Erased()
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_CONVERSATIONS, [subject_id])
        cursor.execute(_LOCK_SUBJECT, [subject_id])
        subject = cursor.fetchone()
        if subject is not None:
            cursor.execute(_LOCK_CONVERSATIONS, [subject_id])  # also such as began while the person was waited for; now none can
            cursor.execute(_LOCK_OWNERS, [subject_id])
            owner_ids = [id for (id,) in cursor.fetchall()]
            with acting_for(owner_ids):
                if delete_slice(cursor, owner_ids, gone):
                    return gone
            _delete_all(cursor, subject_id, owner_ids, gone)
            gone.subject = subject
            reference = reference_to(*subject)
    gone.receipt = Erasure.objects.create(
        id=uuid7(),
        reference=reference,
        actor=actor,
        # Until the stores have answered: should this process be killed, the receipt does not say too much.
        counts={**gone.counts, **dict.fromkeys(stores() if subject else (), PENDING)},
        erased_at=datetime.now(UTC),
        took_ms=0,
    )
    return gone


def _delete_all(cursor: Any, subject_id: int | None, owner_ids: Sequence[int], gone: _Erased) -> None:
    """Delete what there is of a person, the memories first."""
    cursor.execute(_LOCK_TURNS, [subject_id])
    cursor.execute(_FOR_EVERYBODY)
    with acting_for([*owner_ids, *(id for (id,) in cursor.fetchall())]):
        cursor.execute(_DELETE_RECALLED, [subject_id])
        gone.counts["recalled"] += cursor.rowcount
        delete_memories(cursor, owner_ids, gone)
    cursor.execute(_DELETE_SUMMARIES, [subject_id])
    gone.counts["summaries"] += cursor.rowcount
    cursor.execute(_DELETE_TURNS, [subject_id])
    turns = cursor.fetchall()
    gone.counts["turns"] += len(turns)
    gone.texts.update((text, None) for _, message, reply in turns for text in (message, reply) if text)
    gone.turn_ids = tuple(id for id, _, _ in turns)
    cursor.execute(_DELETE_OWNERS, [subject_id])
    gone.names = tuple({name for row in cursor.fetchall() for name in row if name})
    gone.owner_ids = tuple(owner_ids)
    cursor.execute(_DELETE_CONVERSATIONS, [subject_id])
    gone.sessions = tuple(cursor.fetchall())
    gone.counts["conversations"] += len(gone.sessions)
    cursor.execute(_DELETE_SUBJECT, [subject_id])
