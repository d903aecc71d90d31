"""The door of `memory`: what other apps may use of it."""

from __future__ import annotations

from memory.models import TurnState
from memory.turns import (
    FinishedTurn,
    NewTurn,
    OpenedTurn,
    PastTurn,
    finish_turns,
    interrupt_left_behind_turns,
    open_turns,
)

__all__ = [
    "FinishedTurn",
    "NewTurn",
    "OpenedTurn",
    "PastTurn",
    "TurnState",
    "finish_turns",
    "interrupt_left_behind_turns",
    "open_turns",
]
