"""Recall: what was said before that helps to answer a question, within a deadline and a token budget.

Recall never keeps a chat from answering: whatever fails or takes too long in here ends in an empty `Recalled` and a line in the log.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import OperationalError, connection
from psycopg.errors import QueryCanceled

from memory.embedders.client import EmbeddingModel, embed, embedding_model
from memory.isolation import act_for
from memory.question import Asked, Voices, read_question
from memory.ranking import Ranked, rank
from memory.words import is_filler
from observability.api import run_burst

log = structlog.get_logger(__name__)

# What a question is about stands in its beginning; the rest of a pasted document would only slow recall down.
_QUESTION_CHARS: Final = 2000
# A greeting or thanks needs no memory; "Who am I?" has no more telling words than they have, but asks.
_ASKS: Final = re.compile(r"\?|\b(who|what|where|when|why|how|which)\b", re.IGNORECASE)
# How many of the best passages are weighed against each other for the token budget.
POOL: Final = 60
# What a passage must be worth more for each e-fold of tokens it costs: short ones are preferred among equals.
_PRICE_OF_LENGTH: Final = 0.25

# Whose memories a conversation may recall.
_OWNER: Final = """
    SELECT owner.id, owner.user_name, owner.agent_name, space.id
    FROM memory_conversation conversation
    JOIN memory_owner owner ON owner.subject_id = conversation.subject_id AND owner.agent = conversation.agent
    JOIN memory_embeddingspace space ON space.is_active AND space.model = %(model)s
    WHERE conversation.id = %(conversation)s
"""
# Whether there are any that it has not in its prompt already.
_HAS_MEMORIES: Final = """
    SELECT EXISTS (
        SELECT FROM memory_passage
        WHERE owner_id = %(owner)s AND (%(session)s::bigint IS NULL OR session = %(session)s)
          AND (turn_id IS NULL OR turn_id <> ALL(%(not_turns)s::uuid[]))
    )
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What may be recalled for a question, and how much.

    Attributes:
        conversation_id: the conversation that asks. Only memories of its person with its agent are ever looked at.
        session_only: only what was said in this conversation.
        not_turns: turns that are in the prompt anyway.
        limit: how many passages at most.
        budget_tokens: how many tokens they may take together, counted by `tokens_of`.
    """

    question: str
    conversation_id: int
    session_only: bool = False
    not_turns: Sequence[UUID] = ()
    limit: int
    budget_tokens: int
    tokens_of: Callable[[Ranked], int]


@dataclass(frozen=True, slots=True)
class Recalled:
    """The passages to show, the best first; `failure` says why there are none, "" where nothing went wrong."""

    passages: tuple[Ranked, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose memories are recalled: the row of `memory_owner`, who speaks in them, and the space of their vectors."""

    id: int
    voices: Voices
    space_id: int


async def recall(wish: Wish) -> Recalled:
    """Return what helps to answer `wish.question`, after at most MEMORY_DEADLINE_MS."""
    if wish.limit < 1 or wish.budget_tokens < 1 or (is_filler(wish.question) and not _ASKS.search(wish.question)):
        return Recalled()
    try:
        async with asyncio.timeout(settings.MEMORY_DEADLINE_MS / 1000):
            return await _recall(wish)
    except TimeoutError:
        failure = f"not done within {settings.MEMORY_DEADLINE_MS} ms"
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    log.warning("memory recall failed", conversation=wish.conversation_id, reason=failure)
    return Recalled(failure=failure)


async def _recall(wish: Wish) -> Recalled:
    model = embedding_model()
    if model is None:
        return Recalled()
    session = wish.conversation_id if wish.session_only else None
    owner = await run_burst(find_owner, wish.conversation_id, model=model.name, session=session, not_turns=wish.not_turns)
    if owner is None:
        return Recalled()
    ranked = await rank_passages(wish.question, owner=owner, model=model, session=session, not_turns=wish.not_turns)
    chosen = await asyncio.to_thread(choose, ranked, limit=wish.limit, budget_tokens=wish.budget_tokens, tokens_of=wish.tokens_of)
    return Recalled(tuple(chosen))


async def rank_passages(
    question: str,
    *,
    owner: Owner,
    model: EmbeddingModel,
    session: int | None = None,
    not_turns: Sequence[UUID] = (),
    most: int = POOL,
) -> list[Ranked]:
    """Return the `most` passages of `owner` that score highest for `question`, the best first.

    No connection is held while the question is embedded.

    Raises:
        EmbeddingFailed: the question could not be embedded.
        TooSlow: the database took longer than MEMORY_DEADLINE_MS.
        django.db.Error: it did not answer.
    """
    asked = read_question(question[:_QUESTION_CHARS], voices=owner.voices, today=datetime.now(UTC).date())
    [embedding] = await embed([asked.to_embed], model=model)
    return await run_burst(
        _rank_in_time,
        asked,
        embedding=embedding,
        space_id=owner.space_id,
        owner_id=owner.id,
        session=session,
        not_turns=not_turns,
        most=most,
    )


def choose(ranked: Sequence[Ranked], *, limit: int, budget_tokens: int, tokens_of: Callable[[Ranked], int]) -> list[Ranked]:
    """Return the passages that are worth their tokens, at most `limit` of them within `budget_tokens`, the best first.

    A passage that does not fit is passed over, not the end; one that says the same as another is left out.
    """
    tokens = [max(tokens_of(passage), 1) for passage in ranked]
    values = [passage.score - _PRICE_OF_LENGTH * math.log(cost) for passage, cost in zip(ranked, tokens, strict=True)]
    chosen: list[int] = []
    left, said = budget_tokens, set()
    for place in sorted(range(len(ranked)), key=lambda place: -values[place]):
        text = " ".join(ranked[place].text.split()).casefold()
        if len(chosen) < limit and tokens[place] <= left and text not in said:
            chosen.append(place)
            said.add(text)
            left -= tokens[place]
    return [ranked[place] for place in sorted(chosen)]


def find_owner(conversation_id: int, *, model: str, session: int | None = None, not_turns: Sequence[UUID] = ()) -> Owner | None:
    """Return whose memories the conversation may recall; None where there are none, or none that `model` embedded."""
    with connection.cursor() as cursor:
        cursor.execute(_OWNER, {"conversation": conversation_id, "model": model})
        row = cursor.fetchone()
        if row is None:
            return None
        owner_id, user_name, agent_name, space_id = row
        act_for([owner_id])
        cursor.execute(_HAS_MEMORIES, {"owner": owner_id, "session": session, "not_turns": list(not_turns)})
        [has_memories] = cursor.fetchone() or [False]
    if not has_memories:
        return None
    names = {name: speaker for name, speaker in ((user_name, "user"), (agent_name, "agent")) if name}
    return Owner(owner_id, Voices(names=names), space_id)


class TooSlow(Exception):
    """The database ended recall's statement at the deadline."""


def _rank_in_time(asked: Asked, *, owner_id: int, **kwargs: Any) -> list[Ranked]:
    """As `rank`, ended by the database at the deadline: nobody waits for the result by then, but others wait for the thread.

    Raises:
        TooSlow: it was; no error of the connection, which would be closed and the statement tried again.
    """
    act_for([owner_id])
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(settings.MEMORY_DEADLINE_MS)])
    try:
        return rank(asked, owner_id=owner_id, **kwargs)
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise TooSlow(f"the statement took longer than {settings.MEMORY_DEADLINE_MS} ms") from error
        raise
