"""Whose memories a question may draw on: one person's, what their agent knows for everybody, and shared collections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import connection

from memory.embedders.client import EmbeddingModel
from memory.isolation import acting
from memory.models import OwnerKind
from memory.question import Voices
from observability.api import run_together

# Functions of the database (migration 0010). One row for each owner, whatever it has; none where no vectors are in use yet.
_OWNERS: Final = """
    SELECT space_id, model, dimensions, owner_id, kind, user_name, agent_name
    FROM memory_owners(%(agent)s, %(subject)s, %(conversation)s, %(knowledge)s::text[])
"""
# Which of them have any, and which have more than what was said in the turns that the prompt may hold anyway.
_WITH_MEMORIES: Final = """
    SELECT owner_id, has_more FROM memory_holders(%s::bigint[], %s::bigint[], %s::uuid[])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """Whose memories are asked for.

    Attributes:
        agent: the agent's slug. What it knows for everybody is always among them.
        conversation_id: the conversation that asks: its person's memories with the agent are among them.
        subject_id: the person; None where only the conversation is known that asks.
        session_only: of the person's, only what was said in the conversation that asks, or of no particular one.
        knowledge: the names of shared collections.
    """

    agent: str
    conversation_id: int | None = None
    subject_id: int | None = None
    session_only: bool = False
    knowledge: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An owner with memories. `session`: the conversation to which they are limited, None: they are not."""

    owner_id: int
    session: int | None
    is_all_in_view: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The owners that have memories, who speaks in the person's, and the model and space of their vectors."""

    owners: tuple[Source, ...]
    voices: Voices
    model: EmbeddingModel
    space_id: int

    @property
    def is_all_in_view(self) -> bool:
        """Nothing is in them but what was said in the turns that the prompt may hold anyway."""
        return all(source.is_all_in_view for source in self.owners)


def find_sources(whose: Whose, *, models: Sequence[EmbeddingModel], in_view: Sequence[UUID] = ()) -> Sources | None:
    """Return what may be recalled from; None where there is nothing, or nothing that one of `models` embedded.

    To the end of the transaction, the memories of these owners are then what can be seen, and no statement takes longer than
    MEMORY_DEADLINE_MS.

    Args:
        in_view: turns that the prompt may hold anyway.
    """
    parameters = {
        "agent": whose.agent,
        "subject": whose.subject_id,
        "conversation": whose.conversation_id,
        "knowledge": list(whose.knowledge),
    }
    with connection.cursor() as cursor:
        cursor.execute(_OWNERS, parameters)
        rows = cursor.fetchall()
    model = next((model for model in models if rows and model.makes(rows[0][1], dimensions=rows[0][2])), None)
    if model is None:
        return None
    session = (whose.conversation_id or 0) if whose.session_only else None
    sessions = {id: session if kind == OwnerKind.PERSON else None for _, _, _, id, kind, _, _ in rows}
    _, found = run_together(
        acting(list(sessions), timeout_ms=settings.MEMORY_DEADLINE_MS),
        (_WITH_MEMORIES, [list(sessions), list(sessions.values()), list(in_view)]),
    )
    owners = tuple(Source(owner_id=id, session=sessions[id], is_all_in_view=not has_more) for id, has_more in found)
    if not owners:
        return None
    names = {name: speaker for *_, user, agent in rows for name, speaker in ((user, "user"), (agent, "agent")) if name}
    return Sources(owners=owners, voices=Voices(names=names), model=model, space_id=rows[0][0])
