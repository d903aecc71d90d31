"""The rows of memory: who people are, what was said, what of it is recalled and by what it is found."""

from __future__ import annotations

from memory.models.conversations import Conversation, Summary, Turn, TurnState
from memory.models.passages import DateMultiRangeField, Origin, Passage, Recalled, Speaker
from memory.models.people import Erasure, MemoryOwner, OwnerKind, Subject
from memory.models.upkeep import UpkeepRun
from memory.models.vectors import EmbeddingSpace, Posting, Sentence, VarBitField, WideSentence

__all__ = [
    "Conversation",
    "DateMultiRangeField",
    "EmbeddingSpace",
    "Erasure",
    "MemoryOwner",
    "Origin",
    "OwnerKind",
    "Passage",
    "Posting",
    "Recalled",
    "Sentence",
    "Speaker",
    "Subject",
    "Summary",
    "Turn",
    "TurnState",
    "UpkeepRun",
    "VarBitField",
    "WideSentence",
]
