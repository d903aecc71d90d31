"""What happens during a turn, in the order in which callers are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import msgspec


class Started(msgspec.Struct, frozen=True):
    """The turn is stored; the model is about to be called."""

    message_id: UUID
    session_id: str
    agent: str
    version: int
    headers: Mapping[str, str] = {}
    """RateLimit headers: how the caller stands."""


class Delta(msgspec.Struct, frozen=True):
    """A piece of the reply. Pieces joined are the reply."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """That an answer was given to another question, which means the same.

    Attributes:
        similarity: of both questions, 0 to 1.
        age_s: how old the answer is.
        question: the other question; None where it may be a stranger's.
    """

    similarity: float
    age_s: int
    question: str | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The reply is complete and stored. Counts in tokens."""

    message_id: UUID
    session_id: str
    agent: str
    version: int
    reply: str
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: Decimal | None
    """None: the price is unknown."""
    saved_usd: Decimal
    cached: bool
    matched: Matched | None = None


ChatEvent = Started | Delta | Done
