"""What the routes of memories answer, whosever they are."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase

from agents.access import Caller
from agents.rest.people_shapes import AgentMemoryQuery, ChangedMemory
from agents.rest.private import actor_of, private_json
from memory.api import MemoryCard, correct, list_memories, pin
from observability.api import run_burst
from observability.errors import BadRequest


async def memory_page(owner_id: int, query: AgentMemoryQuery) -> HttpResponseBase:
    """Answer with a page of an owner's memories.

    Raises:
        BadRequest: the cursor is none.
    """
    try:
        page = await run_burst(
            list_memories, owner_id, search=query.search, history=query.history, before=query.cursor or None, limit=query.limit
        )
    except BadRequest:  # which calls it otherwise
        raise BadRequest(fields={"cursor": ["must be the 'next' of the page before"]}) from None
    return private_json({"memories": [_memory(card) for card in page.items], "next": page.next})


async def change_memory(owner_id: int, memory_id: int, change: ChangedMemory, caller: Caller) -> HttpResponseBase:
    """Correct a memory, pin it, or both, and answer with its id."""
    if change.text is not None:
        memory_id = await correct(owner_id, memory_id, text=change.text, author=actor_of(caller))
    if change.pinned is not None:
        await run_burst(pin, owner_id, memory_id, pinned=change.pinned)
    return private_json({"id": memory_id})


def _memory(card: MemoryCard) -> dict[str, Any]:
    return {
        "id": card.id,
        "text": card.text,
        "origin": card.origin,
        "speaker": card.speaker,
        "said_at": card.said_at,
        "attribute": card.attribute,
        "valid_until": card.valid_until,
        "superseded_by": card.superseded_by,
        "read_from": card.source,
        "pinned": card.is_pinned,
        "author": card.author,
        "message_id": card.turn_id,
        "session_id": card.session_id,
        "recalled_at": card.recalled_at,
        "recalled_for": card.recalled_for,
    }
