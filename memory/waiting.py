"""What of memory waits for the worker, for metrics and alerts."""

from __future__ import annotations

from memory.embedders.configured import usable_models
from memory.facts.reading import QUEUE as FACTS
from memory.summaries import QUEUE as SUMMARIES
from memory.worker import QUEUE as MEMORY
from observability.api import Queue, register_queue

_TO_REMEMBER = """
    SELECT count(*), min(finished_at) FROM memory_turn WHERE remember AND remembered_at IS NULL AND finished_at IS NOT NULL
"""
_TO_READ = "SELECT count(*), min(facts_due_at) FROM memory_turn WHERE facts_due_at <= now() AND remembered_at IS NOT NULL"
_TO_SUMMARISE = "SELECT count(*), min(last_turn_at) FROM memory_conversation WHERE summary_due"


def register_queues() -> None:
    """Have the queues counted. Where there is nothing to embed with, memory is off and nobody waits for it."""
    register_queue(Queue(MEMORY, _TO_REMEMBER, is_served=lambda: bool(usable_models())))
    register_queue(Queue(FACTS, _TO_READ, is_served=lambda: bool(usable_models())))
    register_queue(Queue(SUMMARIES, _TO_SUMMARISE))
