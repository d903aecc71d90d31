"""What an agent remembers of earlier conversations with the person who asks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from agents.chat.prompt import memory_budget, memory_tokens, model_of
from agents.models import MemoryScope
from agents.versions.live import Answering
from memory.api import OpenedTurn, Ranked, Wish, recall


async def recall_for(answering: Answering, *, message: str, opened: OpenedTurn) -> Sequence[Ranked]:
    """Return the memories that help to answer `message`, as many as the version grants; none where recall fails or is slow.

    The turn itself is not among them, as a turn is remembered once it is finished, nor are turns that are sent anyway.
    """
    budget = await memory_budget(answering, message=message, recent=opened.recent, summary=opened.summary)
    recalled = await recall(
        Wish(
            question=message,
            conversation_id=opened.conversation_id,
            session_only=answering.memory_scope == MemoryScope.SESSION,
            not_turns=[turn.id for turn in budget.sent if turn.id],
            limit=answering.memory_limit,
            budget_tokens=budget.tokens,
            tokens_of=partial(memory_tokens, model=model_of(answering)),
        )
    )
    return recalled.passages
