"""The door of `memory`: what other apps may use of it."""

from __future__ import annotations

from memory.activity import Breakage, Day, breakages_today, turns_by_day, turns_today
from memory.models import TurnState
from memory.turns import (
    FinishedTurn,
    NewTurn,
    OpenedTurn,
    PastTurn,
    end_left_behind_turns,
    finish_turns,
    open_turns,
)

__all__ = [
    "Breakage",
    "Day",
    "FinishedTurn",
    "NewTurn",
    "OpenedTurn",
    "PastTurn",
    "TurnState",
    "breakages_today",
    "end_left_behind_turns",
    "finish_turns",
    "open_turns",
    "turns_by_day",
    "turns_today",
]
