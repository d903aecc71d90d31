"""Facts that a model reads, where an agent wants it: what rules cannot read, in other languages too.

A turn of such an agent is marked when it is opened (`facts_due_at`). Once it is remembered and its conversation is quiet for a
while, a worker takes the conversation's marked turns, has them read together by a reader that is handed in, embeds what was read,
and stores it in one transaction that also takes the marks away. No database connection is held meanwhile. A process may die
anywhere in between: the mark, moved into the future as a lease, falls due again, and whoever comes second finds no mark.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from memory.embedders.client import RETRY_CACHE_S, EmbeddingModel, Vector
from memory.embedders.costs import Payer, charged_to
from memory.embedders.passages import embed_passages
from memory.facts.storing import store_facts
from memory.features import PassageFeatures, features_of
from memory.models import Origin, Speaker
from memory.parts import parts
from memory.spaces import model_in_use
from memory.storing import NewPassage
from memory.turns import PastTurn
from memory.words import terms
from observability.api import keep_draining, note_job_failure, run_burst
from observability.logs import in_words

log = structlog.get_logger(__name__)

QUEUE: Final = "facts"
"""What metrics and alerts call this work."""
POLL_S: Final = 10.0
MAX_TURNS: Final = 20
"""How many turns are read together."""
READ_WITHIN_S: Final = 150.0
LEASE_S: Final = 240
"""How long other processes leave a conversation to the one that reads it."""
_FIRST_WAIT_S: Final = 60.0
_LONGEST_WAIT_S: Final = 3600.0
_GIVE_UP_AFTER: Final = timedelta(days=1)
_MAX_ATTRIBUTE_CHARS: Final = 100

FactReader = Callable[[str, Sequence[PastTurn]], Awaitable[list[tuple[int, str, str]] | None]]
"""Given an agent's slug and turns of one conversation, returns what the person told: the turn's index, the attribute, and the fact
in words; None where the agent wants none read."""

_DUE: Final = "facts_due_at <= now() AND remembered_at IS NOT NULL"
# A conversation with a mark that is not due is still going on, or somebody reads it.
_TAKE: Final = f"""
    WITH quiet AS (
        SELECT conversation_id FROM memory_turn due
        WHERE {_DUE} AND NOT EXISTS (
            SELECT FROM memory_turn other WHERE other.conversation_id = due.conversation_id AND other.facts_due_at > now()
        )
        ORDER BY facts_due_at LIMIT 1
    ), taken AS (
        UPDATE memory_turn SET facts_due_at = now() + make_interval(secs => %s)
        WHERE id IN (
            SELECT id FROM memory_turn WHERE {_DUE} AND conversation_id IN (SELECT conversation_id FROM quiet)
            ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED
        )
        RETURNING id, conversation_id, seq, message, reply, created_at
    )
    SELECT taken.id, owner.id, conversation.agent, taken.message, taken.reply, taken.created_at, owner.user_name, owner.agent_name
    FROM taken
    JOIN memory_conversation conversation ON conversation.id = taken.conversation_id
    LEFT JOIN memory_owner owner ON owner.agent = conversation.agent AND owner.subject_id = conversation.subject_id
    ORDER BY taken.seq
"""  # noqa: S608 - constants
_LOCK_OWNER: Final = "SELECT FROM memory_owner WHERE id = %s FOR UPDATE"
_UNMARK: Final = "UPDATE memory_turn SET facts_due_at = NULL WHERE id = ANY(%s) AND facts_due_at IS NOT NULL RETURNING id"
_WAIT: Final = """
    UPDATE memory_turn SET facts_due_at = now() + make_interval(secs => %s) WHERE id = ANY(%s) AND facts_due_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class MarkedTurn:
    """A turn that a model is to read, and whose it is; `owner_id` None: nothing is remembered of them any more."""

    id: UUID
    owner_id: int | None
    agent: str
    message: str
    reply: str
    said_at: datetime
    user_name: str | None
    agent_name: str | None


@dataclass(frozen=True, slots=True)
class _ReadFact:
    turn: MarkedTurn
    attribute: str
    text: str
    features: PassageFeatures


async def keep_reading_facts(stopping: asyncio.Event, read: FactReader) -> None:
    """Have turns read that are marked until `stopping` is set. What fails is logged and tried again, for a day."""
    await keep_draining(stopping, lambda: read_due_facts(read), every_s=POLL_S, failed="facts not read", queue=QUEUE)


async def read_due_facts(read: FactReader) -> int:
    """Have the marked turns of one conversation read; return how many they were: 0 when none is due.

    Raises:
        DatabaseError: the database cannot be reached; the turns stay marked.
    """
    turns = await run_burst(take_marked_turns)
    if not turns:
        return 0
    try:
        await _read_together(turns, read)
    except asyncio.CancelledError:
        with contextlib.suppress(DatabaseError):  # the lease ends by itself
            await asyncio.shield(run_burst(_wait, turns, seconds=0.0))
        raise
    except Exception as error:
        age = datetime.now(UTC) - turns[-1].said_at
        reason = getattr(error, "reason", "") or in_words(error)
        if age > _GIVE_UP_AFTER:
            log.error("facts given up", agent=turns[0].agent, turns=len(turns), reason=reason)
            await run_burst(store_read_facts, turns, [], model=None)
        else:
            wait_s = min(max(age.total_seconds(), _FIRST_WAIT_S), _LONGEST_WAIT_S)  # twice as long each time
            await note_job_failure(QUEUE, error)
            log.warning("facts not read yet", agent=turns[0].agent, turns=len(turns), reason=reason, retry_in_s=round(wait_s))
            await run_burst(_wait, turns, seconds=wait_s)
    return len(turns)


async def _read_together(turns: Sequence[MarkedTurn], read: FactReader) -> None:
    async with asyncio.timeout(READ_WITHIN_S):
        told = await read(turns[0].agent, [PastTurn(turn.message, turn.reply, turn.id) for turn in turns])
    facts = [_fact(turns[index], attribute, text) for index, attribute, text in told or ()]
    model = await run_burst(model_in_use) if facts else None
    with charged_to(Payer(agent=turns[0].agent)):
        vectors = await _embed(facts, model) if model else [[] for _ in facts]
    passages = [_passage(fact, own) for fact, own in zip(facts, vectors, strict=True) if fact.turn.owner_id is not None]
    await run_burst(store_read_facts, turns, passages, model=model)


def take_marked_turns() -> list[MarkedTurn]:
    """Take the marked turns of a conversation that is quiet and that no other process reads, in order."""
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, [LEASE_S, MAX_TURNS])
        return [MarkedTurn(*row) for row in cursor.fetchall()]


def store_read_facts(turns: Sequence[MarkedTurn], facts: Sequence[NewPassage], *, model: EmbeddingModel | None) -> int:
    """Store `facts` of the turns that are still marked, and take these marks away; return how many facts were new."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_OWNER, [turns[0].owner_id])
        cursor.execute(_UNMARK, [[turn.id for turn in turns]])
        marked = {id for (id,) in cursor.fetchall()}
    return store_facts([fact for fact in facts if fact.turn_id in marked], model=model)


def _wait(turns: Sequence[MarkedTurn], *, seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_WAIT, [seconds, [turn.id for turn in turns]])


def _fact(turn: MarkedTurn, attribute: str, text: str) -> _ReadFact:
    names = tuple(filter(None, (turn.user_name, turn.agent_name)))
    return _ReadFact(turn, attribute[:_MAX_ATTRIBUTE_CHARS], text, features_of(text, said_on=turn.said_at.date(), names=names))


async def _embed(facts: Sequence[_ReadFact], model: EmbeddingModel) -> list[list[Vector]]:
    """Return the vectors of each fact's sentences; none for a fact that the embedder will never take."""
    sentences = [[sentence.text for sentence in fact.features.sentences] for fact in facts]
    found = await embed_passages(sentences, model=model, cache_s=RETRY_CACHE_S)
    for fact, vectors in zip(facts, found, strict=True):
        if vectors is None:
            log.error("fact remembered by its words alone", turn=str(fact.turn.id))
    return [vectors or [] for vectors in found]


def _passage(fact: _ReadFact, vectors: Sequence[Vector]) -> NewPassage:
    assert fact.turn.owner_id is not None
    return NewPassage(
        owner_id=fact.turn.owner_id,
        origin=Origin.MODEL,
        turn_id=fact.turn.id,
        speaker=Speaker.USER,
        part=_part_told_in(fact),
        said_at=fact.turn.said_at,
        text=fact.text,
        features=fact.features,
        vectors=tuple(vectors),
        attribute=fact.attribute,
    )


def _part_told_in(fact: _ReadFact) -> int:
    """Return the part of a long message that shares most words with the fact."""
    wanted = set(terms(fact.text))
    shared = [len(wanted & set(terms(part))) for part in parts(fact.turn.message)]
    return shared.index(max(shared))
