"""Erasing a person: everything that is kept about them, with every agent, for good; a receipt without content remains.

A conversation that goes on meanwhile brings nothing back. Erasing locks the person's conversations, then the person, then
their memories' owners. Whoever stores a turn or a memory needs one of these locks, and afterwards finds no row to write to:
a running turn ends without a trace, and a worker's passages are dropped.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection
from uuid_utils.compat import uuid7

from memory.elsewhere import PENDING, Outcome, SubjectErased, keep_telling, stores, tell_stores
from memory.isolation import act_for, stop_acting
from memory.models import Erasure, Subject
from observability.api import run_burst
from observability.errors import NotFound

log = structlog.get_logger(__name__)

AT_ONCE: Final = 20_000
"""How many memories are erased in one transaction. Of a person with more, the bulk goes before, in several."""
_ROWS_AT_ONCE: Final = 50_000
_HASH_BYTES: Final = 15

# In the order in which turns are opened, so that the two never wait for each other.
_LOCK_CONVERSATIONS: Final = "SELECT id FROM memory_conversation WHERE subject_id = %s ORDER BY owner, agent, session_id FOR UPDATE"
_LOCK_SUBJECT: Final = "SELECT owner, name FROM memory_subject WHERE id = %s FOR UPDATE"
_LOCK_OWNERS: Final = "SELECT id FROM memory_owner WHERE subject_id = %s ORDER BY id FOR UPDATE"
_FOR_EVERYBODY: Final = "SELECT id FROM memory_owner WHERE kind <> 'person'"
_HAS_MANY: Final = "SELECT FROM memory_passage WHERE owner_id = ANY(%s) OFFSET %s LIMIT 1"
# Facts before what they were read from, which would take them along uncounted.
_DELETE_SLICE: Final = """
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE owner_id = ANY(%s) {order} LIMIT %s))
"""
_SLICED: Final = (
    ("words", "memory_posting", ""),
    ("vectors", "memory_sentence", ""),
    ("vectors", "memory_widesentence", ""),
    ("recalled", "memory_recalled", ""),
    ("memories", "memory_passage", "ORDER BY source_id"),
)
# Vectors and postings before their passages: to find those of all of an owner's passages is quicker than those of each.
_DELETE_MEMORIES: Final = (
    ("words", "DELETE FROM memory_posting WHERE owner_id = ANY(%(owners)s)"),
    ("vectors", "DELETE FROM memory_sentence WHERE owner_id = ANY(%(owners)s)"),
    ("vectors", "DELETE FROM memory_widesentence WHERE owner_id = ANY(%(owners)s)"),
    # What an agent knows for everybody may have been recalled for this person, too.
    (
        "recalled",
        """
        DELETE FROM memory_recalled WHERE owner_id = ANY(%(owners)s) OR turn_id IN (
            SELECT turn.id FROM memory_turn turn JOIN memory_conversation conversation ON conversation.id = turn.conversation_id
            WHERE conversation.subject_id = %(subject)s
        )
        """,
    ),
    ("memories", "DELETE FROM memory_passage WHERE owner_id = ANY(%(owners)s) RETURNING text"),
)
_DELETE_SUMMARIES: Final = """
    DELETE FROM memory_summary USING memory_conversation conversation
    WHERE conversation.id = memory_summary.conversation_id AND conversation.subject_id = %s
"""
_DELETE_TURNS: Final = """
    DELETE FROM memory_turn USING memory_conversation conversation
    WHERE conversation.id = memory_turn.conversation_id AND conversation.subject_id = %s
    RETURNING memory_turn.id, message, reply
"""
_DELETE_OWNERS: Final = "DELETE FROM memory_owner WHERE subject_id = %s"
_DELETE_CONVERSATIONS: Final = "DELETE FROM memory_conversation WHERE subject_id = %s RETURNING agent, session_id"
_DELETE_SUBJECT: Final = "DELETE FROM memory_subject WHERE id = %s"
KINDS: Final = ("conversations", "turns", "summaries", "memories", "vectors", "words", "recalled")
"""What receipts count, beside the other stores' entries."""


class ErasureNotFound(NotFound):
    """There is no such receipt, or it is none of the caller's."""

    code = "erasure-not-found"
    title = "Erasure not found"
    remedy = "Check the receipt's id; it is the 'id' that erasing a user returned."


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """That a person was erased: what was deleted, when and by whom, and nothing of what it was.

    `counts` has rows by kind, and entries by store; a store that has not confirmed yet has "pending".
    """

    id: UUID
    erased_at: datetime
    took_ms: int
    counts: dict[str, Outcome]
    actor: str

    @property
    def pending(self) -> tuple[str, ...]:
        """The stores that have not confirmed yet."""
        return tuple(name for name, outcome in self.counts.items() if outcome == PENDING)


@dataclass(slots=True)
class _Gone:
    """What a transaction deleted. Without `receipt` there is more to delete."""

    counts: Counter[str] = field(default_factory=Counter)
    receipt: Erasure | None = None
    erased: SubjectErased | None = None


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


async def read_receipt(erasure_id: UUID, *, owner: str, name: str | None = None) -> Receipt:
    """Return the receipt of an erasure in the namespace of `owner`; where `name` is given, of that person alone.

    Raises:
        ErasureNotFound: there is none.
    """
    return await run_burst(_read_receipt, erasure_id, owner=owner, name=name)


def find_subject(owner: str, name: str) -> int | None:
    """Return the id of the person whom `owner` calls `name`; None where there is none."""
    return Subject.objects.filter(owner=owner, name=name).values_list("id", flat=True).first()


def reference_to(owner: str, name: str) -> str:
    """Return what a receipt says instead of a name: keyed hashes of the namespace, and of the name in it."""
    return _references(owner, name, secret_key=settings.SECRET_KEY)


async def _erase(subject_id: int | None, *, reference: str, actor: str) -> Receipt:
    started = time.monotonic()
    counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    while True:
        gone = await run_burst(_erase_some, subject_id, reference=reference, actor=actor)
        counts.update(gone.counts)
        if gone.receipt is not None:
            break
    receipt = gone.receipt
    outcomes: dict[str, Outcome] = dict(await tell_stores(gone.erased)) if gone.erased else {}
    receipt.counts = {**counts, **outcomes}
    receipt.took_ms = round((time.monotonic() - started) * 1000)
    await run_burst(receipt.save, update_fields=["counts", "took_ms"])
    if gone.erased:
        for name, outcome in outcomes.items():
            if outcome == PENDING:
                keep_telling(gone.erased, name=name, confirm=_confirming(receipt.pk, name))
    log.info("person erased", erasure=str(receipt.pk), actor=actor, took_ms=receipt.took_ms, pending=_receipt(receipt).pending)
    return _receipt(receipt)


def _erase_some(subject_id: int | None, *, reference: str, actor: str) -> _Gone:
    """Delete a person, or the bulk of a large one's memories, in a transaction that the caller began."""
    gone = _Gone()
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_CONVERSATIONS, [subject_id])
        cursor.execute(_LOCK_SUBJECT, [subject_id])
        subject = cursor.fetchone()
        if subject is not None:
            cursor.execute(_LOCK_OWNERS, [subject_id])
            owner_ids = [id for (id,) in cursor.fetchall()]
            if _delete_slice(cursor, owner_ids, gone.counts):
                return gone
            gone.erased = _delete_all(cursor, subject_id, owner_ids, counts=gone.counts, owner=subject[0], name=subject[1])
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


def _delete_slice(cursor: Any, owner_ids: Sequence[int], counts: Counter[str]) -> bool:
    """Delete some rows where a person has more memories than one transaction takes; return whether there were."""
    act_for(owner_ids)
    cursor.execute(_HAS_MANY, [owner_ids, AT_ONCE])
    is_large = cursor.fetchone() is not None
    if is_large:
        for kind, table, order in _SLICED:
            cursor.execute(_DELETE_SLICE.format(table=table, order=order), [owner_ids, _ROWS_AT_ONCE])
            if cursor.rowcount:
                counts[kind] += cursor.rowcount
                break
    stop_acting()
    return is_large


def _delete_all(
    cursor: Any, subject_id: int | None, owner_ids: Sequence[int], *, counts: Counter[str], owner: str, name: str
) -> SubjectErased:
    """Delete what there is of a person, the memories first, and return what it was."""
    cursor.execute(_FOR_EVERYBODY)
    act_for([*owner_ids, *(id for (id,) in cursor.fetchall())])
    for kind, statement in _DELETE_MEMORIES:
        cursor.execute(statement, {"owners": list(owner_ids), "subject": subject_id})
        counts[kind] += cursor.rowcount
    texts = [text for (text,) in cursor.fetchall()]
    stop_acting()
    cursor.execute(_DELETE_SUMMARIES, [subject_id])
    counts["summaries"] += cursor.rowcount
    cursor.execute(_DELETE_TURNS, [subject_id])
    turns = cursor.fetchall()
    counts["turns"] += len(turns)
    cursor.execute(_DELETE_OWNERS, [subject_id])
    cursor.execute(_DELETE_CONVERSATIONS, [subject_id])
    sessions = cursor.fetchall()
    counts["conversations"] += len(sessions)
    cursor.execute(_DELETE_SUBJECT, [subject_id])
    said = (text for _, message, reply in turns for text in (message, reply) if text)
    return SubjectErased(
        owner=owner,
        name=name,
        owner_ids=tuple(owner_ids),
        sessions=tuple(sessions),
        turn_ids=tuple(id for id, _, _ in turns),
        texts=tuple(dict.fromkeys([*texts, *said])),
    )


def _confirming(erasure_id: UUID, name: str) -> Callable[[int], Awaitable[None]]:
    async def confirm(entries: int) -> None:
        await run_burst(_confirm, erasure_id, name=name, entries=entries)

    return confirm


def _confirm(erasure_id: UUID, *, name: str, entries: int) -> None:
    receipt = Erasure.objects.select_for_update().get(id=erasure_id)
    receipt.counts[name] = entries
    receipt.save(update_fields=["counts"])


def _read_receipt(erasure_id: UUID, *, owner: str, name: str | None) -> Receipt:
    found = Erasure.objects.filter(id=erasure_id).first()
    if found is None or not _is_about(found.reference, owner, name):
        raise ErasureNotFound
    return _receipt(found)


def _receipt(row: Erasure) -> Receipt:
    return Receipt(id=row.pk, erased_at=row.erased_at, took_ms=row.took_ms, counts=dict(row.counts), actor=row.actor)


def _is_about(reference: str, owner: str, name: str | None) -> bool:
    for secret_key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        expected = _references(owner, name or "", secret_key=str(secret_key))
        given = reference
        if name is None:
            expected, given = expected.partition(":")[0], reference.partition(":")[0]
        if hmac.compare_digest(expected.encode(), given.encode()):
            return True
    return False


def _references(owner: str, name: str, *, secret_key: str) -> str:
    return f"{_hash(owner, secret_key=secret_key)}:{_hash(f'{owner}/{name}', secret_key=secret_key)}"


def _hash(text: str, *, secret_key: str) -> str:
    key = b"erasure:" + secret_key.encode()
    return base64.urlsafe_b64encode(hmac.digest(key, text.encode(errors="surrogatepass"), "sha256")[:_HASH_BYTES]).decode()
