"""What an agent's version asks of upkeep."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How much of its people an agent keeps, and how long. 0 everywhere means: without end.

    Attributes:
        agent: the agent's slug.
        memory_cap: how many memories of one person.
        memory_days: after how many days a memory goes.
        conversation_days: after how many days without a turn a conversation goes.
        trace_days: after how many days the trace of a turn goes; unlike the others, 0 means at once.
    """

    agent: str
    memory_cap: int = 0
    memory_days: int = 0
    conversation_days: int = 0
    trace_days: int = 0

    def traces_before(self, now: datetime) -> datetime:
        """Return the moment before which a turn's trace is too old."""
        return now - timedelta(days=self.trace_days)

    def memories_before(self, now: datetime) -> datetime | None:
        """Return the moment before which memories are too old; None where none ever is."""
        return now - timedelta(days=self.memory_days) if self.memory_days else None

    def conversations_before(self, now: datetime) -> datetime | None:
        """Return the moment before which a conversation had its last turn if it is over; None where none ever is."""
        return now - timedelta(days=self.conversation_days) if self.conversation_days else None
