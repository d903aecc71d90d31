"""What may be recalled for a question, and what was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from memory.choosing import LeftOut
from memory.ranking import Ranked
from memory.sources import Whose


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
        room: the prompt's room for them, in tokens counted by `tokens_of`; a function is only called once there is anything to recall,
            in a thread, which may be visiting the database: it must not.
        in_view: the turns that `room` may turn out to hold anyway.
        key: the API key that pays for embedding the question; "" without one.
    """

    question: str
    whose: Whose
    limit: int
    threshold: float = 0.0
    room: Room | Callable[[], Room]
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
