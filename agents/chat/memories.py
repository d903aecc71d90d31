"""What an agent remembers of earlier conversations with the person who asks, and what it knows for everybody."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from uuid import UUID

from agents.chat.prompt import memory_budget, memory_tokens, model_of
from agents.models import MemoryScope
from agents.versions.live import Answering
from memory.api import OpenedTurn, Recalled, RecalledPassage, Room, Whose, Wish, recall
from observability.tracing import begin_span


async def recall_for(answering: Answering, *, message: str, opened: OpenedTurn, key: str = "") -> Recalled:
    """Return the memories that help to answer `message`, as many as the version grants; none where recall fails or is slow.

    `key`: the API key that asks, and pays.

    The turn itself is not among them, as a turn is remembered once it is finished, nor are turns that are sent anyway.
    """
    whose = _whose(answering, conversation_id=opened.conversation_id, subject_id=opened.subject_id or None)
    in_view = [turn.id for turn in opened.recent if turn.id]
    wish = _wish(answering, message=message, whose=whose, room=_room(answering, message, opened), in_view=in_view)
    span = begin_span("recall")
    recalled = await recall(replace(wish, key=key))
    span.note({"chatbot.recall.outcome": recalled.outcome.value, "chatbot.recall.passages": len(recalled.passages)})
    span.end(error="recall-failed" if recalled.failure else "")
    return recalled


async def try_recall(answering: Answering, *, message: str, subject_id: int | None = None) -> Recalled:
    """Return what `message` would recall as the first of a new conversation of the person `subject_id`; None: of a stranger.

    As a chat turn does it, by the same function; nothing is stored.
    """
    whose = _whose(answering, subject_id=subject_id)
    return await recall(_wish(answering, message=message, whose=whose, room=_room(answering, message, OpenedTurn(0, 1, ()))))


def shown_of(recalled: Recalled, *, sent: Collection[UUID | None]) -> tuple[RecalledPassage, ...]:
    """Return what a prompt that holds the turns `sent` shows of `recalled`, for the turn's record."""
    passages = [passage for passage in recalled.passages if passage.turn_id is None or passage.turn_id not in sent]
    return tuple(
        RecalledPassage(
            owner_id=passage.owner_id,
            passage_id=passage.id,
            position=position,
            score=passage.score,
            contributions=passage.contributions(),
        )
        for position, passage in enumerate(passages, start=1)
    )


def _whose(answering: Answering, *, conversation_id: int | None = None, subject_id: int | None = None) -> Whose:
    return Whose(
        agent=answering.slug,
        conversation_id=conversation_id,
        subject_id=subject_id,
        session_only=answering.memory_scope == MemoryScope.SESSION,
        knowledge=answering.knowledge,
    )


def _wish(answering: Answering, *, message: str, whose: Whose, room: Callable[[], Room], in_view: Collection[UUID] = ()) -> Wish:
    return Wish(
        question=message,
        whose=whose,
        limit=answering.memory_limit if answering.memory_budget_tokens else 0,
        threshold=answering.memory_threshold,
        room=room,
        in_view=tuple(in_view),
        tokens_of=partial(memory_tokens, model=model_of(answering)),
    )


def _room(answering: Answering, message: str, opened: OpenedTurn) -> Callable[[], Room]:
    def room() -> Room:
        budget = memory_budget(answering, message=message, recent=opened.recent, summary=opened.summary)
        return Room(budget.tokens, frozenset(turn.id for turn in budget.sent if turn.id))

    return room
