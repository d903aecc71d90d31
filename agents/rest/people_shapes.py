"""The bodies and queries of the routes about people: memories, conversations, exports and erasures."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from django.http import QueryDict
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from agents.rest.shapes import Shape, Storable, Strict, UserName, read

Slug = Annotated[Storable, StringConstraints(min_length=1, max_length=63)]


class Query(Strict):
    """What stands behind the question mark: texts, read as what they mean."""

    model_config = ConfigDict(strict=False, extra="forbid", frozen=True)


class AgentMemoryQuery(Query):
    search: Storable = Field(default="", max_length=200, description="Only memories that contain this, whatever the case.")
    history: bool = Field(default=False, description="Also what is true no longer: corrected, contradicted, or forgotten by its age.")
    cursor: Storable = Field(default="", max_length=100, description="The `next` of the page before.")
    limit: int = Field(default=50, ge=1, le=200, description="How many at most.")


class MemoryQuery(AgentMemoryQuery):
    agent: Slug = Field(description="The agent's slug.")


class ForgetQuery(Query):
    agent: Slug | None = Field(default=None, description="The agent's slug. Absent: every agent that the key may use.")


class ConversationQuery(Query):
    agent: Slug = Field(description="The agent's slug.")
    user: UserName | None = Field(default=None, description="Whose session it is; needed where several users call theirs the same.")


class MessageQuery(ConversationQuery):
    cursor: int = Field(default=0, ge=0, lt=2**31, description="The `next` of the page before.")
    limit: int = Field(default=50, ge=1, le=200, description="How many at most.")


class NewAgentMemory(Strict):
    """Something that an agent shall know."""

    text: Storable = Field(min_length=1, description="What is to be remembered, in a sentence or two.")


class NewMemory(NewAgentMemory):
    """Something that an agent shall know about a user."""

    agent: Slug = Field(description="The agent's slug.")


class ChangedMemory(Strict):
    """A correction, a pin, or both."""

    text: Storable | None = Field(default=None, min_length=1, description="What is true instead. The old text stays as history.")
    pinned: bool | None = Field(default=None, description="Keep it whatever caps and age limits say.")

    @model_validator(mode="after")
    def _changes_something(self) -> ChangedMemory:
        if self.text is None and self.pinned is None:
            raise ValueError("changes nothing; send 'text' or 'pinned'")
        return self


class Memory(BaseModel):
    """A memory, and where it comes from."""

    id: int
    text: str
    origin: Literal["turn", "fact", "model", "added"]
    speaker: Literal["user", "agent", "note"]
    said_at: datetime
    attribute: str = Field(description='What a fact is about, such as "name"; "" for anything else.')
    valid_until: datetime | None = Field(description="When it stopped being true; null while it is.")
    superseded_by: int | None = Field(description="The memory that took its place.")
    read_from: int | None = Field(description="The memory that it was read from.")
    pinned: bool
    author: str
    message_id: UUID | None
    session_id: str
    recalled_at: datetime | None = Field(description="When it last helped to answer.")
    recalled_for: str = Field(description='Which message it helped to answer then; "" for what is known for everybody.')


class MemoryList(BaseModel):
    """Memories, the newest first."""

    memories: list[Memory]
    next: str = Field(description='The `cursor` of the next page; "" where this is the last.')


class MemoryId(BaseModel):
    """Which memory that is now: a correction is a new one."""

    id: int


class Forgotten(BaseModel):
    """How many memories are gone for good."""

    forgotten: int


class ConversationShape(BaseModel):
    """A conversation."""

    session_id: str
    agent: str
    user: str | None = Field(description="The user, null where none was named.")
    began_at: datetime
    last_message_at: datetime
    messages: int
    summary: str = Field(description='What was said before the recent messages; "" where nothing was summarised yet.')


class MessageShape(BaseModel):
    """A message and its reply."""

    message_id: UUID
    number: int
    created_at: datetime
    finished_at: datetime | None
    state: Literal["running", "done", "cancelled", "interrupted", "failed"]
    version: int
    message: str
    reply: str
    model: str
    finish_reason: str
    metadata: dict[str, str]


class MessageList(BaseModel):
    """Messages, the oldest first."""

    messages: list[MessageShape]
    next: str = Field(description='The `cursor` of the next page; "" where this is the last.')


class ReceiptShape(BaseModel):
    """What an erasure deleted, and nothing of what it was."""

    id: UUID
    erased_at: datetime
    took_ms: int
    counts: dict[str, int | Literal["pending"]] = Field(
        description='Rows by kind, and entries by other store; "pending" where a store has not confirmed yet.'
    )
    actor: str = Field(description="The key that asked for it.")


class Export(BaseModel):
    """All that is kept about a user; docs/api.md describes the fields."""

    user: str
    exported_at: datetime
    agents: list[dict[str, Any]]
    conversations: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    memories: list[dict[str, Any]]


USER: Final = OpenApiParameter("user", OpenApiTypes.STR, OpenApiParameter.PATH, description="The end user, 1 to 128 characters, no '/'.")
AGENT: Final = OpenApiParameter("agent", OpenApiTypes.STR, OpenApiParameter.PATH, description="The agent's slug.")
ID: Final = OpenApiParameter("id", OpenApiTypes.INT64, OpenApiParameter.PATH, description="The memory's id.")
_TYPES: Final = {bool: OpenApiTypes.BOOL, int: OpenApiTypes.INT}


def read_query(shape: type[Shape], query: QueryDict) -> Shape:
    """Return what stands behind the question mark, as a `shape`.

    Raises:
        BadRequest: names every parameter that is wrong and what is wrong with it.
    """
    return read(shape, query.dict())


def parameters(shape: type[Query]) -> list[OpenApiParameter]:
    """Return the parameters of `shape` for the API's description."""
    return [
        OpenApiParameter(
            name,
            _TYPES.get(field.annotation, OpenApiTypes.STR),  # type: ignore[arg-type] # an annotation that is no type is a text here
            required=field.is_required(),
            description=field.description or "",
        )
        for name, field in shape.model_fields.items()
    ]
