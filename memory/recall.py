"""Recall: what was said before that helps to answer a question, within a deadline and a token budget.

Recall never keeps a chat from answering: whatever fails or takes too long in here ends in an empty `Recalled` and a line in the log.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import structlog
from django.conf import settings
from django.db import OperationalError
from psycopg.errors import QueryCanceled

from memory.choosing import LeftOut, choose
from memory.embedders.configured import EmbeddingModel, usable_models
from memory.embedders.costs import Payer, Terms, charged_to, give_back, promise, terms_of
from memory.head_start import HeadStart, embed_question, head_start
from memory.isolation import act_for, stop_acting
from memory.question import QUESTION_CHARS, Asked, read_question
from memory.ranking import Ranked, rank
from memory.sources import Sources, Whose, find_sources
from memory.words import is_filler
from observability.api import NewAttempt, Refusal, count_recall, run_burst
from observability.logs import in_words

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A greeting or thanks needs no memory; "Who am I?" has no more telling words than they have, but asks.
_ASKS: Final = re.compile(r"\?|\b(who|what|where|when|why|how|which)\b", re.IGNORECASE)
# How many of the best passages are weighed against each other for the token budget.
POOL: Final = 60


@dataclass(frozen=True, slots=True)
class Room:
    """What a prompt has left for memories: how many tokens, and the turns that it holds anyway, which are not recalled."""

    tokens: int
    sent: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What may be recalled for a question, and how much. A chat turn and whoever tries what it would recall wish alike.

    Attributes:
        whose: the person, agent and collections: of a conversation, or (to try it) of a person without one.
        limit: how many passages at most.
        threshold: the least score of a passage that is recalled.
        room: the prompt's room for them, in tokens counted by `tokens_of`; a function is only called once there is anything to recall.
        in_view: the turns that `room` may turn out to hold anyway.
        key: the API key that pays for embedding the question; "" without one.
    """

    question: str
    whose: Whose
    limit: int
    threshold: float = 0.0
    room: Room | Callable[[], Awaitable[Room]]
    in_view: Sequence[UUID] = ()
    tokens_of: Callable[[Ranked], int]
    key: str = ""


class Outcome(StrEnum):
    """How a recall ended."""

    OK = "ok"
    EMPTY = "empty"
    SLOW = "slow"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was recalled.

    Attributes:
        passages: those to show, the best first.
        left_out: those that were considered too, the best first, each with the reason against it.
        outcome: ok with passages and empty without; slow and failed recall brings none.
        failure: why recall failed, "" where nothing went wrong.
        took_ms: how long it took.
    """

    passages: tuple[Ranked, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    outcome: Outcome = Outcome.EMPTY
    failure: str = ""
    took_ms: float = field(default=0.0, compare=False)


async def recall(wish: Wish) -> Recalled:
    """Return what helps to answer `wish.question`, after at most MEMORY_DEADLINE_MS."""
    if wish.limit < 1 or (is_filler(wish.question) and not _ASKS.search(wish.question)):
        return Recalled()
    started = time.perf_counter()
    passages: tuple[Ranked, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    failure = ""
    try:
        async with asyncio.timeout(settings.MEMORY_DEADLINE_MS / 1000):
            passages, left_out = await _recall(wish)
        outcome = Outcome.OK if passages else Outcome.EMPTY
    except (TimeoutError, TooSlow):
        outcome, failure = Outcome.SLOW, f"not done within {settings.MEMORY_DEADLINE_MS} ms"
    except Exception as error:
        outcome, failure = Outcome.FAILED, in_words(error)
    recalled = Recalled(passages, left_out, outcome, failure, took_ms=1000 * (time.perf_counter() - started))
    _tell(recalled, agent=wish.whose.agent)
    return recalled


def _tell(recalled: Recalled, *, agent: str) -> None:
    """Say how a recall went: what there is to count and to time."""
    fields = {"agent": agent, "outcome": recalled.outcome.value, "took_ms": round(recalled.took_ms, 1)}
    count_recall("hit" if recalled.outcome is Outcome.OK else recalled.outcome.value, seconds=recalled.took_ms / 1000)
    if recalled.failure:
        log.warning("memory recall failed", reason=recalled.failure, **fields)
    else:
        log.info("memory recalled", passages=len(recalled.passages), **fields)


async def _recall(wish: Wish) -> tuple[tuple[Ranked, ...], tuple[LeftOut, ...]]:
    models = usable_models()
    if not models:
        return (), ()
    with head_start(wish.question, models) as ahead:
        return await _recall_with(models, wish, ahead)


async def _recall_with(
    models: Sequence[EmbeddingModel], wish: Wish, ahead: HeadStart | None
) -> tuple[tuple[Ranked, ...], tuple[LeftOut, ...]]:
    finding = asyncio.ensure_future(run_burst(_find, wish, models=models, terms=await terms_of(models)))
    try:
        sources, promised = await asyncio.shield(finding)
    except asyncio.CancelledError:
        finding.add_done_callback(_give_back_found)
        raise
    if sources is None:
        return (), ()
    with charged_to(_payer_of(wish), promised=promised, waits=False):
        return await _recall_from(sources, wish, ahead)


def _find(wish: Wish, *, models: Sequence[EmbeddingModel], terms: Terms | None) -> tuple[Sources | None, NewAttempt | Refusal | None]:
    """Return what may be recalled from. A vendor's call to embed the question is written down by the same visit."""
    sources = find_sources(wish.whose, models=models, in_view=wish.in_view)
    if sources is None or terms is None or sources.model.is_builtin or all(source.is_all_in_view for source in sources.owners):
        return sources, None
    stop_acting()
    return sources, promise(wish.question[:QUESTION_CHARS], model=sources.model, payer=_payer_of(wish), terms=terms)


def _give_back_found(finding: asyncio.Future[tuple[Sources | None, NewAttempt | Refusal | None]]) -> None:
    """Nobody waits for the question's vector any more."""
    if not finding.cancelled() and finding.exception() is None:
        give_back(finding.result()[1])


def _payer_of(wish: Wish) -> Payer:
    whose = wish.whose
    return Payer(agent=whose.agent, key=wish.key, conversation_id=whose.conversation_id or 0, subject_id=whose.subject_id or 0)


async def _recall_from(sources: Sources, wish: Wish, ahead: HeadStart | None) -> tuple[tuple[Ranked, ...], tuple[LeftOut, ...]]:
    room = wish.room if isinstance(wish.room, Room) else await wish.room()
    everything_sent = room.sent.issuperset(wish.in_view) and all(source.is_all_in_view for source in sources.owners)
    if room.tokens < 1 or everything_sent:
        return (), ()
    choose_from = partial(
        choose,
        question=wish.question,
        limit=wish.limit,
        budget_tokens=room.tokens,
        tokens_of=wish.tokens_of,
        threshold=wish.threshold,
    )
    choice = await _with_ranked(choose_from, wish.question, sources=sources, not_turns=tuple(room.sent), ahead=ahead)
    return choice.passages, choice.left_out


async def rank_passages(question: str, *, sources: Sources, most: int = POOL) -> list[Ranked]:
    """Return the `most` passages of `sources` that score highest for `question`, the best first.

    Raises:
        EmbeddingFailed: the question could not be embedded.
        TooSlow: the database took longer than MEMORY_DEADLINE_MS.
        django.db.Error: it did not answer.
    """
    return await _with_ranked(list, question, sources=sources, most=most)


async def _with_ranked(
    then: Callable[[list[Ranked]], T],
    question: str,
    *,
    sources: Sources,
    not_turns: Sequence[UUID] = (),
    most: int = POOL,
    ahead: HeadStart | None = None,
) -> T:
    """Return what `then` makes of the passages that score highest, in the thread that fetched them: another one would have to wake up.

    No connection is held while the question is embedded.
    """
    asked = read_question(question[:QUESTION_CHARS], voices=sources.voices, today=datetime.now(UTC).date())
    if ahead is None:
        [embedding] = await embed_question(asked.to_embed, model=sources.model)
    else:
        embedding = await ahead.embedding(asked.to_embed, model=sources.model)
    return await run_burst(lambda: then(_rank_in_time(asked, sources=sources, embedding=embedding, not_turns=not_turns, most=most)))


class TooSlow(Exception):
    """The database ended recall's statement at the deadline."""


def _rank_in_time(asked: Asked, *, sources: Sources, embedding: Sequence[float], not_turns: Sequence[UUID], most: int) -> list[Ranked]:
    """Rank what each owner has, and merge it by score, which means the same everywhere.

    Ended by the database at the deadline: nobody waits for the result by then, but others wait for the thread.

    Raises:
        TooSlow: it was; no error of the connection, which would be closed and the statement tried again.
    """
    act_for([source.owner_id for source in sources.owners], timeout_ms=settings.MEMORY_DEADLINE_MS)
    try:
        ranked = [
            passage
            for source in sources.owners
            for passage in rank(
                asked,
                embedding=embedding,
                space_id=sources.space_id,
                owner_id=source.owner_id,
                session=source.session,
                not_turns=not_turns,
                most=most,
            )
        ]
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise TooSlow(f"the statement took longer than {settings.MEMORY_DEADLINE_MS} ms") from error
        raise
    return sorted(ranked, key=lambda passage: -passage.score)[:most]
