"""Recall: what was said before that helps to answer a question, within a deadline and a token budget.

Recall never keeps a chat from answering: whatever fails or takes too long in here ends in an empty `Recalled` and a line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import OperationalError
from psycopg.errors import QueryCanceled

from memory.choosing import Choice, choose
from memory.embedders.client import embed
from memory.embedders.configured import EmbeddingModel, usable_models
from memory.embedders.costs import Payer, Terms, charged_to, give_back, promise, terms_of
from memory.embedders.line import has_line, line_to
from memory.isolation import act_for, stop_acting
from memory.question import QUESTION_CHARS, Asked, read_question
from memory.ranking import Ranked, rank
from memory.sources import Sources, find_sources
from memory.wishes import Outcome, Recalled, Room, Wish
from memory.words import is_filler
from observability.api import NewAttempt, Refusal, count_recall, run_burst
from observability.logs import in_words

log = structlog.get_logger(__name__)

# A greeting or thanks needs no memory; "Who am I?" has no more telling words than they have, but asks.
_ASKS: Final = re.compile(r"\?|\b(who|what|where|when|why|how|which)\b", re.IGNORECASE)
# How many of the best passages are weighed against each other for the token budget.
POOL: Final = 60

# How many questions of this process wait for recall at this moment.
_under_way = 0
# Held by the thread that recalls at once, which may go on for a moment when nobody waits any more.
_at_once: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is to recall from, and how the question is read by it. `promised`: the call that embeds it, where it is paid for."""

    sources: Sources
    asked: Asked
    promised: NewAttempt | Refusal | None = None


async def recall(wish: Wish) -> Recalled:
    """Return what helps to answer `wish.question`, after at most MEMORY_DEADLINE_MS."""
    if wish.limit < 1 or (is_filler(wish.question) and not _ASKS.search(wish.question)):
        return Recalled()
    started, until = time.perf_counter(), time.monotonic() + settings.MEMORY_DEADLINE_MS / 1000
    choice, failure = Choice(), ""
    try:
        async with asyncio.timeout(settings.MEMORY_DEADLINE_MS / 1000):
            choice = await _recall(wish, until=until)
        outcome = Outcome.OK if choice.passages else Outcome.EMPTY
    except (TimeoutError, TooSlow):
        outcome, failure = Outcome.SLOW, f"not done within {settings.MEMORY_DEADLINE_MS} ms"
    except Exception as error:
        outcome, failure = Outcome.FAILED, in_words(error)
    recalled = Recalled(choice.passages, choice.left_out, outcome, failure, took_ms=1000 * (time.perf_counter() - started))
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


async def _recall(wish: Wish, *, until: float) -> Choice:
    models = usable_models()
    if not models:
        return Choice()
    with _being_under_way():
        if _under_way == 1 and not _at_once.locked() and all(map(has_line, models)):
            return await run_burst(_recall_at_once, wish, models, until=until)
        return await _recall_in_steps(wish, models)


@contextlib.contextmanager
def _being_under_way() -> Iterator[None]:
    global _under_way
    _under_way += 1
    try:
        yield
    finally:
        _under_way -= 1


def _recall_at_once(wish: Wish, models: Sequence[EmbeddingModel], *, until: float) -> Choice:
    """Recall in one visit to the database, which finds the sources while the built-in embedder is at work already.

    That is quickest for a question that is alone. Of many at once, each would keep a connection for as long as the embedder has
    others to serve; and what costs money is not embedded before it is known that there is something to recall.

    Args:
        until: when nobody waits any more, of `time.monotonic()`.

    Raises:
        TooSlow: the database took too long, or the embedder.
    """
    question = wish.question[:QUESTION_CHARS]
    with _at_once, line_to(models[0], until=until) as line, _in_time():
        line.ask(question)
        found = _find(wish, models=models)
        if found is None:
            return Choice()
        room = wish.room if isinstance(wish.room, Room) else wish.room()
        if not _is_worth_it(wish, found.sources, room):
            return Choice()
        if found.asked.to_embed != question:  # names in it turned out to mean somebody
            line.ask(found.asked.to_embed)
        ranked = _ranked(found.asked, sources=found.sources, embedding=line.answer(), not_turns=tuple(room.sent))
        return _chosen(ranked, wish=wish, room=room)


async def _recall_in_steps(wish: Wish, models: Sequence[EmbeddingModel]) -> Choice:
    """Recall without holding a connection while tokens are counted or the question is embedded."""
    finding = asyncio.ensure_future(run_burst(_find, wish, models=models, terms=await terms_of(models)))
    try:
        found = await asyncio.shield(finding)
    except asyncio.CancelledError:
        finding.add_done_callback(_give_back_found)
        raise
    if found is None:
        return Choice()
    with charged_to(_payer_of(wish), promised=found.promised, waits=False):
        room = wish.room if isinstance(wish.room, Room) else await asyncio.to_thread(wish.room)
        if not _is_worth_it(wish, found.sources, room):
            return Choice()
        embedding = await _embedding_of(found.asked, model=found.sources.model)
    return await run_burst(_rank_and_choose, wish, found, room, embedding)


def _find(wish: Wish, *, models: Sequence[EmbeddingModel], terms: Terms | None = None) -> _Found | None:
    """Return what may be recalled from; None where there is nothing.

    A vendor's call to embed the question is written down by the same visit, unless the prompt most likely holds all there is.

    Raises:
        TooSlow: the database took too long.
    """
    with _in_time():
        sources = find_sources(wish.whose, models=models, in_view=wish.in_view)
        if sources is None:
            return None
        asked = read_question(wish.question[:QUESTION_CHARS], voices=sources.voices, today=datetime.now(UTC).date())
        if terms is None or sources.model.is_builtin or sources.is_all_in_view:
            return _Found(sources, asked)
        stop_acting()
        return _Found(sources, asked, promise(asked.to_embed, model=sources.model, payer=_payer_of(wish), terms=terms))


def _is_worth_it(wish: Wish, sources: Sources, room: Room) -> bool:
    """Tell whether there is room for memories, and any that the prompt does not hold anyway."""
    return room.tokens > 0 and not (sources.is_all_in_view and room.sent.issuperset(wish.in_view))


def _give_back_found(finding: asyncio.Future[_Found | None]) -> None:
    """Nobody waits for the question's vector any more."""
    if not finding.cancelled() and finding.exception() is None and (found := finding.result()):
        give_back(found.promised)


def _payer_of(wish: Wish) -> Payer:
    whose = wish.whose
    return Payer(agent=whose.agent, key=wish.key, conversation_id=whose.conversation_id or 0, subject_id=whose.subject_id or 0)


async def _embedding_of(asked: Asked, *, model: EmbeddingModel) -> Sequence[float]:
    """The built-in embedder is about as quick as the cache, and asking both takes longer than either."""
    [embedding] = await embed([asked.to_embed], model=model, cache_s=0 if model.is_builtin else None)
    return embedding


def _rank_and_choose(wish: Wish, found: _Found, room: Room, embedding: Sequence[float]) -> Choice:
    ranked = _rank_in_time(found.asked, sources=found.sources, embedding=embedding, not_turns=tuple(room.sent))
    return _chosen(ranked, wish=wish, room=room)


def _chosen(ranked: Sequence[Ranked], *, wish: Wish, room: Room) -> Choice:
    return choose(
        ranked, question=wish.question, limit=wish.limit, budget_tokens=room.tokens, tokens_of=wish.tokens_of, threshold=wish.threshold
    )


async def rank_passages(question: str, *, sources: Sources, most: int = POOL) -> list[Ranked]:
    """Return the `most` passages of `sources` that score highest for `question`, the best first.

    Raises:
        EmbeddingFailed: the question could not be embedded.
        TooSlow: the database took longer than MEMORY_DEADLINE_MS.
        django.db.Error: it did not answer.
    """
    asked = read_question(question[:QUESTION_CHARS], voices=sources.voices, today=datetime.now(UTC).date())
    embedding = await _embedding_of(asked, model=sources.model)
    return await run_burst(_rank_in_time, asked, sources=sources, embedding=embedding, most=most)


class TooSlow(Exception):
    """The database ended recall's statement at the deadline, or the embedder had no vector by then."""


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """What is ended at the deadline is no error of the database connection, which would be closed, and all tried again.

    Raises:
        TooSlow: something was.
    """
    try:
        yield
    except TimeoutError as error:
        raise TooSlow(f"the embedder took longer than {settings.MEMORY_DEADLINE_MS} ms") from error
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise TooSlow(f"the statement took longer than {settings.MEMORY_DEADLINE_MS} ms") from error
        raise


def _rank_in_time(
    asked: Asked, *, sources: Sources, embedding: Sequence[float], not_turns: Sequence[UUID] = (), most: int = POOL
) -> list[Ranked]:
    """Do as `_ranked` does, ended by the database at the deadline: nobody waits for the result by then, but others for the thread.

    Raises:
        TooSlow: it was.
    """
    with _in_time():
        act_for([source.owner_id for source in sources.owners], timeout_ms=settings.MEMORY_DEADLINE_MS)
        return _ranked(asked, sources=sources, embedding=embedding, not_turns=not_turns, most=most)


def _ranked(
    asked: Asked, *, sources: Sources, embedding: Sequence[float], not_turns: Sequence[UUID] = (), most: int = POOL
) -> list[Ranked]:
    """Rank what each owner has, and merge it by score, which means the same everywhere."""
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
    return sorted(ranked, key=lambda passage: -passage.score)[:most]
