"""What was said, for those who may read it: conversations, and their turns page by page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from memory.models import Conversation, Turn
from observability.errors import BadRequest, NotFound

_SEVERAL: Final = 2


class ConversationNotFound(NotFound):
    """There is no such conversation, or it is none of the caller's."""

    code = "conversation-not-found"
    title = "Conversation not found"
    remedy = "Check the session's id, the agent and the user."


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationCard:
    """A conversation as it is shown. `user` is the subject's name."""

    id: int
    session_id: str
    agent: str
    user: str
    began_at: datetime
    last_turn_at: datetime
    turns: int
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageCard:
    """A turn as it is shown: a message and its reply."""

    message_id: UUID
    number: int
    created_at: datetime
    finished_at: datetime | None
    state: str
    version: int
    message: str
    reply: str
    model: str
    finish_reason: str
    metadata: dict[str, str]


def names_of_sessions(owner: str, conversation_ids: Iterable[int]) -> dict[int, str]:
    """Return what `owner` calls these conversations: their session ids. Others' and deleted ones are left out."""
    return dict(Conversation.objects.filter(owner=owner, id__in=list(conversation_ids)).values_list("id", "session_id"))


def find_conversation(owner: str, *, agent: str, session_id: str, subject: str = "") -> ConversationCard:
    """Return the conversation that `owner` calls `session_id`; of the subject with this name, where it is given.

    Raises:
        ConversationNotFound: there is none.
        BadRequest: several people call a session so, and none is named.
    """
    found = Conversation.objects.filter(owner=owner, agent=agent, session_id=session_id).select_related("subject")
    conversations = list((found.filter(subject__name=subject) if subject else found)[:_SEVERAL])
    if not conversations:
        raise ConversationNotFound
    if len(conversations) > 1:
        raise BadRequest(fields={"user": ["is needed: several users have a session of this name"]})
    [conversation] = conversations
    return ConversationCard(
        id=conversation.pk,
        session_id=conversation.session_id,
        agent=conversation.agent,
        user=conversation.subject.name,
        began_at=conversation.created_at,
        last_turn_at=conversation.last_turn_at,
        turns=conversation.last_seq,
        summary=conversation.summary,
    )


def list_messages(conversation_id: int, *, after: int = 0, limit: int = 50) -> Sequence[MessageCard]:
    """Return a conversation's turns behind number `after`, the oldest first, `limit` at most."""
    turns = Turn.objects.filter(conversation_id=conversation_id, seq__gt=after).order_by("seq")
    return [MessageCard(**_renamed(row)) for row in turns.values(*_COLUMNS)[:limit]]


_COLUMNS: Final = ("id", "seq", "created_at", "finished_at", "state", "version", "message", "reply", "model", "finish_reason", "metadata")
_NAMES: Final = {"id": "message_id", "seq": "number"}


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    return {_NAMES.get(column, column): value for column, value in row.items()}
