"""The door of `memory`: what other apps may use of it."""

from __future__ import annotations

from memory.activity import Breakage, Day, breakages_today, turns_by_day, turns_today
from memory.choosing import LeftOut
from memory.models import TurnState
from memory.ranking import Ranked
from memory.recall import Outcome, Recalled, Room, Wish, recall
from memory.sources import Whose
from memory.summaries import Summarise, Written, keep_summarising
from memory.turns import (
    FinishedTurn,
    NewTurn,
    OpenedTurn,
    PastTurn,
    RecalledPassage,
    end_left_behind_turns,
    finish_turns,
    open_turns,
)
from memory.upkeep.policy import Policy
from memory.upkeep.run import AlreadyRunning, Counts, run_upkeep
from memory.upkeep.schedule import keep_tidy
from memory.worker import keep_remembering

__all__ = [
    "AlreadyRunning",
    "Breakage",
    "Counts",
    "Day",
    "FinishedTurn",
    "LeftOut",
    "NewTurn",
    "OpenedTurn",
    "Outcome",
    "PastTurn",
    "Policy",
    "Ranked",
    "Recalled",
    "RecalledPassage",
    "Room",
    "Summarise",
    "TurnState",
    "Whose",
    "Wish",
    "Written",
    "breakages_today",
    "end_left_behind_turns",
    "finish_turns",
    "keep_remembering",
    "keep_summarising",
    "keep_tidy",
    "open_turns",
    "recall",
    "run_upkeep",
    "turns_by_day",
    "turns_today",
]
