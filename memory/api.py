"""The door of `memory`: what other apps may use of it."""

from __future__ import annotations

from memory.activity import Breakage, Day, Hour, Pace, breakages_today, paces_by_hour, paces_today, turns_by_day, turns_today
from memory.browsing import (
    MemoryCard,
    MemoryPage,
    agent_owner,
    list_memories,
    memory_counts,
    owner_for,
    owners_of_subject,
    person_owner,
    shared_owner,
    shared_owners,
)
from memory.choosing import LeftOut
from memory.curating import MemoryIsHistory, MemoryNotFound, add, correct, forget, pin
from memory.elsewhere import SubjectErased, register_eraser, unregister_eraser
from memory.embedders.costs import Payer
from memory.embedders.line import close_lines
from memory.erasing import erase, erase_user
from memory.exporting import export_user
from memory.facts.reading import FactReader, keep_reading_facts
from memory.forgetting import forget_all
from memory.health import warn_unless_isolated
from memory.knowledge import Knowledge, knowledge_of
from memory.meaning import Meaning, meaning_of
from memory.models import MemoryOwner, OwnerKind, TurnState
from memory.naming import Known, PersonName, describe_people_by, find_person, name_owner
from memory.people import UserNotFound, find_subject, known_subject, names_of_users, owner_of_memory, people_numbered, subject_for
from memory.ranking import Ranked
from memory.reasons import Reason, draw_reasons
from memory.recall import recall
from memory.receipts import ErasureNotFound, Receipt, read_receipt
from memory.recollections import RecalledPassage
from memory.sources import Whose
from memory.summaries import Summarise, Written, keep_summarising
from memory.transcripts import ConversationCard, ConversationNotFound, MessageCard, find_conversation, list_messages, names_of_sessions
from memory.turns import (
    FinishedTurn,
    NewTurn,
    OpenedTurn,
    PastTurn,
    end_left_behind_turns,
    finish_turns,
    hold_turns,
    open_turns,
)
from memory.upkeep.policy import Policy
from memory.upkeep.run import AlreadyRunning, Counts, run_upkeep
from memory.upkeep.schedule import keep_tidy
from memory.wishes import Outcome, Recalled, Room, Wish
from memory.worker import keep_remembering

__all__ = [
    "AlreadyRunning",
    "Breakage",
    "ConversationCard",
    "ConversationNotFound",
    "Counts",
    "Day",
    "ErasureNotFound",
    "FactReader",
    "FinishedTurn",
    "Hour",
    "Knowledge",
    "Known",
    "LeftOut",
    "Meaning",
    "MemoryCard",
    "MemoryIsHistory",
    "MemoryNotFound",
    "MemoryOwner",
    "MemoryPage",
    "MessageCard",
    "NewTurn",
    "OpenedTurn",
    "Outcome",
    "OwnerKind",
    "Pace",
    "PastTurn",
    "Payer",
    "PersonName",
    "Policy",
    "Ranked",
    "Reason",
    "Recalled",
    "RecalledPassage",
    "Receipt",
    "Room",
    "SubjectErased",
    "Summarise",
    "TurnState",
    "UserNotFound",
    "Whose",
    "Wish",
    "Written",
    "add",
    "agent_owner",
    "breakages_today",
    "close_lines",
    "correct",
    "describe_people_by",
    "draw_reasons",
    "end_left_behind_turns",
    "erase",
    "erase_user",
    "export_user",
    "find_conversation",
    "find_person",
    "find_subject",
    "finish_turns",
    "forget",
    "forget_all",
    "hold_turns",
    "keep_reading_facts",
    "keep_remembering",
    "keep_summarising",
    "keep_tidy",
    "knowledge_of",
    "known_subject",
    "list_memories",
    "list_messages",
    "meaning_of",
    "memory_counts",
    "name_owner",
    "names_of_sessions",
    "names_of_users",
    "open_turns",
    "owner_for",
    "owner_of_memory",
    "owners_of_subject",
    "paces_by_hour",
    "paces_today",
    "people_numbered",
    "person_owner",
    "pin",
    "read_receipt",
    "recall",
    "register_eraser",
    "run_upkeep",
    "shared_owner",
    "shared_owners",
    "subject_for",
    "turns_by_day",
    "turns_today",
    "unregister_eraser",
    "warn_unless_isolated",
]
