"""The bodies of the routes about API keys."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from pydantic import BaseModel, Field, model_validator

from agents.access.issuing import LONGEST_OVERLAP
from agents.rest.people_shapes import Slug
from agents.rest.shapes import KeyName, Strict

ScopeName = Literal["chat", "read_conversations", "manage_memories", "manage_knowledge", "pinned_versions", "usage", "erase", "manage_keys"]

_LONGEST_S: Final = 3650 * 86_400


class NewKey(Strict):
    """A key to be made: no more than what the key that asks may do itself."""

    name: KeyName = Field(description="What the key is for, such as 'web shop, production'.")
    scopes: list[ScopeName] = Field(default=["chat"], min_length=1, max_length=7, description="What it may be used for.")
    agents: list[Slug] = Field(default=[], max_length=200, description="The slugs of the agents that it may use.")
    all_agents: bool = Field(default=False, description="It may use every agent, also those made later; `agents` stays empty.")
    expires_in_s: int | None = Field(
        default=None, ge=1, le=_LONGEST_S, description="When it ends. Absent: never, or with the key that makes it."
    )

    @model_validator(mode="after")
    def _opens_something(self) -> NewKey:
        if bool(self.agents) is self.all_agents:
            raise ValueError("needs either 'agents' or 'all_agents': true")
        return self


class Rotation(Strict):
    """For how long the old key goes on."""

    overlap_s: int = Field(default=86_400, ge=0, le=int(LONGEST_OVERLAP.total_seconds()), description="For how long the old key goes on.")


class KeyState(StrEnum):
    """Whether a key opens anything still."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class KeyShape(BaseModel):
    """A key, without its secret."""

    id: str = Field(description="Its public id: the part before the dot.")
    name: str
    state: KeyState
    scopes: list[str]
    agents: list[str] | None = Field(description="The agents that it may use; null: every agent.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="Right to a minute or so.")
    replaces: str | None = Field(description="The id of the key whose successor it is.")


class NewSecret(KeyShape):
    """A key that was just made."""

    key: str = Field(description="The secret: shown now and never again.")
    old_expires_at: datetime | None = Field(default=None, description="Of a rotation: when the old key ends.")


class KeyList(BaseModel):
    """The owner's keys, the newest first: at most 1,000."""

    keys: list[KeyShape]
