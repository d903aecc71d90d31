"""How long each agent keeps what was said, for upkeep."""

from __future__ import annotations

from agents.models import Agent
from memory.api import Policy


def list_policies() -> list[Policy]:
    """Return what the live version of each agent keeps, by slug. What belongs to agents without one is left alone.

    Agents that are switched off are among them: a promise to delete holds while nobody chats, too.
    """
    agents = Agent.objects.filter(live_version__isnull=False).order_by("slug")
    rows = agents.values_list("slug", "live_version__memory_cap", "live_version__memory_days", "live_version__conversation_days")
    return [
        Policy(agent=slug, memory_cap=cap, memory_days=memory_days, conversation_days=conversation_days)
        for slug, cap, memory_days, conversation_days in rows
    ]
