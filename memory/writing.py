"""Writing to long-term memory: finished turns become passages, with the vectors and terms by which they are found.

`remember_due_turns` takes turns whose agent remembers, embeds their sentences while it holds no database connection, and
writes everything in one transaction that also ends the waiting. A process may die anywhere in between: another one takes the
same turns once the lease is over, and whoever comes second finds them remembered. Turns of one owner are written by one
process at a time, in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from memory.embedders.client import RETRY_CACHE_S, EmbeddingModel, Vector
from memory.embedders.passages import embed_passages
from memory.facts.rules import statements_in
from memory.facts.storing import store_facts
from memory.features import PassageFeatures, features_of
from memory.models import Origin, Speaker
from memory.parts import parts
from memory.spaces import check_space
from memory.storing import NewPassage, store
from memory.words import is_filler
from observability.api import run_burst

log = structlog.get_logger(__name__)

MAX_TURNS: Final = 64
"""How many turns are embedded and written together."""
LEASE_S: Final = 90
"""How long other processes leave an owner to the one that embeds its turns."""
_MAX_CHARS: Final = 200_000

_DUE: Final = """
    FROM memory_turn turn
    JOIN memory_conversation conversation ON conversation.id = turn.conversation_id
    LEFT JOIN memory_owner owner ON owner.agent = conversation.agent AND owner.subject_id = conversation.subject_id
    WHERE turn.remember AND turn.remembered_at IS NULL AND turn.finished_at IS NOT NULL
"""
_FREE: Final = "(owner.busy_until IS NULL OR owner.busy_until < now())"
# A person who is being erased gets none.
_ADD_OWNERS: Final = f"""
    WITH due AS (
        SELECT DISTINCT agent, subject_id
        FROM (SELECT conversation.agent, conversation.subject_id, owner.id {_DUE} AND {_FREE} ORDER BY turn.finished_at LIMIT %s) AS first
        WHERE id IS NULL
    ), there AS (
        SELECT id FROM memory_subject WHERE id IN (SELECT subject_id FROM due) ORDER BY id FOR KEY SHARE SKIP LOCKED
    )
    INSERT INTO memory_owner (agent, subject_id, user_name, agent_name, created_at)
    SELECT agent, subject_id, '', '', now() FROM due JOIN there ON there.id = subject_id
    ORDER BY 1, 2
    ON CONFLICT (agent, subject_id) DO NOTHING
"""  # noqa: S608 - constants
_TAKE_OWNERS: Final = f"""
    UPDATE memory_owner SET busy_until = now() + make_interval(secs => %s)
    WHERE id IN (
        SELECT owner.id FROM memory_owner owner
        WHERE {_FREE} AND owner.id IN (SELECT owner.id {_DUE} AND {_FREE} ORDER BY turn.finished_at LIMIT %s)
        ORDER BY owner.id FOR UPDATE SKIP LOCKED
    )
    RETURNING id
"""  # noqa: S608 - constants
_TAKE_TURNS: Final = f"""
    SELECT turn.id, owner.id, conversation.id, turn.message, turn.reply, turn.created_at, owner.user_name, owner.agent_name
    {_DUE} AND owner.id = ANY(%s)
    ORDER BY owner.id, conversation.id, turn.seq LIMIT %s
"""
# In the order in which whoever erases, forgets or writes locks them.
_FREE_OWNERS: Final = """
    UPDATE memory_owner SET busy_until = NULL
    WHERE id IN (SELECT id FROM memory_owner WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE)
"""


@dataclass(frozen=True, slots=True)
class DueTurn:
    """A finished turn that waits to be remembered, and whose it is."""

    id: UUID
    owner_id: int
    conversation_id: int
    message: str
    reply: str
    said_at: datetime
    user_name: str
    agent_name: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.user_name, self.agent_name)))


@dataclass(frozen=True, slots=True)
class Taken:
    """Turns that this process has taken, and the owners it keeps busy meanwhile."""

    turns: tuple[DueTurn, ...]
    owner_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A passage before it is embedded. A fact's `part` is the one that it was read from."""

    turn: DueTurn
    speaker: Speaker
    part: int
    text: str
    features: PassageFeatures
    attribute: str = ""


async def remember_due_turns(model: EmbeddingModel) -> int:
    """Put turns that wait for it into long-term memory, at most `MAX_TURNS`; return how many: 0 when none waits.

    Raises:
        EmbeddingFailed: the embedder did not answer; the turns wait on.
        WrongSpace: `model` is not the one whose vectors are stored; the turns wait on.
        DatabaseError: the database cannot be reached; the turns wait on.
    """
    await run_burst(check_space, model)
    taken = await run_burst(take_due_turns)
    if not taken.turns:
        return 0
    try:
        drafts = await asyncio.to_thread(_draft, taken.turns)
        vectors = await _embed(drafts, model)
        passages = [_passage(draft, found) for draft, found in zip(drafts, vectors, strict=True)]
        return await run_burst(_store, passages, turn_ids=[turn.id for turn in taken.turns], model=model)
    finally:
        with contextlib.suppress(DatabaseError):  # the lease ends by itself
            await run_burst(free_owners, taken.owner_ids)


def take_due_turns() -> Taken:
    """Take turns of owners whom no other process is busy with, each owner's in order."""
    with connection.cursor() as cursor:
        cursor.execute(_ADD_OWNERS, [MAX_TURNS])
        cursor.execute(_TAKE_OWNERS, [LEASE_S, MAX_TURNS])
        owner_ids = tuple(id for (id,) in cursor.fetchall())
        if not owner_ids:
            return Taken((), ())
        cursor.execute(_TAKE_TURNS, [list(owner_ids), MAX_TURNS])
        turns = tuple(DueTurn(*row) for row in cursor.fetchall())
    return Taken(tuple(_within(turns, chars=_MAX_CHARS)), owner_ids)


def free_owners(owner_ids: Sequence[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_FREE_OWNERS, [list(owner_ids)])


def _within(turns: Sequence[DueTurn], *, chars: int) -> Iterator[DueTurn]:
    """Yield the first turns that are not longer than `chars` together, and always the first."""
    left = chars
    for number, turn in enumerate(turns):
        left -= len(turn.message) + len(turn.reply)
        if left < 0 and number:
            return
        yield turn


def _draft(turns: Sequence[DueTurn]) -> list[_Draft]:
    found = []
    for turn in turns:
        for speaker, said in ((Speaker.USER, turn.message), (Speaker.AGENT, turn.reply)):
            if not is_filler(said):
                found += [_Draft(turn, speaker, number, text, _features(turn, text)) for number, text in enumerate(parts(said))]
        found += _draft_facts(turn)
    return found


def _draft_facts(turn: DueTurn) -> Iterator[_Draft]:
    """Yield what the person said of themselves. Only the whole message shows whether they quote somebody."""
    if told := statements_in(turn.message):
        for number, text in enumerate(parts(turn.message)):
            for statement in statements_in(text):
                if statement in told:
                    features = _features(turn, statement.text)
                    yield _Draft(turn, Speaker.USER, number, statement.text, features, statement.attribute)


def _features(turn: DueTurn, text: str) -> PassageFeatures:
    return features_of(text, said_on=turn.said_at.date(), names=turn.names)


async def _embed(drafts: Sequence[_Draft], model: EmbeddingModel) -> list[list[Vector]]:
    """Return the vectors of each draft's sentences; none for a draft that the embedder will never take."""
    sentences = [[sentence.text for sentence in draft.features.sentences] for draft in drafts]
    found = await embed_passages(sentences, model=model, cache_s=RETRY_CACHE_S)
    for draft, vectors in zip(drafts, found, strict=True):
        if vectors is None:
            log.error("passage remembered by its words alone", turn=str(draft.turn.id))
    return [vectors or [] for vectors in found]


def _passage(draft: _Draft, vectors: Sequence[Vector]) -> NewPassage:
    return NewPassage(
        owner_id=draft.turn.owner_id,
        turn_id=draft.turn.id,
        session=draft.turn.conversation_id,
        speaker=draft.speaker,
        part=draft.part,
        said_at=draft.turn.said_at,
        text=draft.text,
        features=draft.features,
        vectors=tuple(vectors),
        origin=Origin.FACT if draft.attribute else Origin.TURN,
        attribute=draft.attribute,
    )


def _store(passages: Sequence[NewPassage], *, turn_ids: Sequence[UUID], model: EmbeddingModel) -> int:
    remembered = store([passage for passage in passages if passage.origin == Origin.TURN], turn_ids=turn_ids, model=model)
    store_facts([passage for passage in passages if passage.origin == Origin.FACT], model=model)
    return remembered
