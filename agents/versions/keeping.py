"""How long each agent keeps what was said, for upkeep."""

from __future__ import annotations

from agents.models import Agent
from memory.api import Policy


def list_policies() -> list[Policy]:
    """Return what the live version of each agent keeps, by slug. What belongs to agents without one is left alone.

    Agents that are switched off are among them: a promise to delete holds while nobody chats, too.
    """
    agents = Agent.objects.filter(live_version__isnull=False).order_by("slug")
    kept = ("memory_cap", "memory_days", "conversation_days", "trace_days")
    rows = agents.values_list("slug", *(f"live_version__{name}" for name in kept))
    return [Policy(agent=slug, **dict(zip(kept, values, strict=True))) for slug, *values in rows]
