"""One person: the agents that remember them, and a frame for every page about them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import Count, Max, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from memory.browsing import memory_counts, owners_of_subject
from memory.models import Conversation, MemoryOwner, Subject
from memory.naming import name_person

from .pages import PEOPLE, for_person, may, render_page

MOST_CONVERSATIONS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class WithAgent:
    """What there is of a person with one agent. `owner_id` None: the agent keeps no memories of them."""

    agent: str
    owner_id: int | None
    memories: int
    conversations: int
    turns: int
    last_seen_at: datetime | None


@for_person("view")
def person(request: HttpRequest, subject: Subject) -> HttpResponseBase:
    """Show what there is of a person, agent by agent, and their newest conversations."""
    newest = Conversation.objects.filter(subject=subject).order_by("-last_turn_at")
    return render_person_page(
        request,
        "admin/memory/person.html",
        subject,
        tab="",
        agents=_agents_of(subject),
        conversations=newest[:MOST_CONVERSATIONS],
        conversation_count=newest.count(),
        may_view_conversations=may(request, "view", "conversation"),
    )


def render_person_page(request: HttpRequest, template: str, subject: Subject, *, tab: str, **context: Any) -> HttpResponse:
    """Render one of a person's pages with a tab for each agent that remembers them; `tab` is an agent, or "" for the overview."""
    name = name_person(subject)
    shared = {
        "opts": Subject._meta,
        "subject": subject,
        "person": name,
        "person_owners": owners_of_subject(subject.pk),
        "tab": tab,
        "may_change": may(request, "change", PEOPLE),
        "may_erase": may(request, "delete", PEOPLE),
    }
    return render_page(request, template, **{"title": name.title, **shared, **context})


def _agents_of(subject: Subject) -> list[WithAgent]:
    said = Conversation.objects.filter(subject=subject).values("agent").order_by("agent")
    by_agent = {row["agent"]: row for row in said.annotate(count=Count("id"), said=Sum("last_seq"), last_at=Max("last_turn_at"))}
    owners = dict(MemoryOwner.objects.filter(subject=subject).values_list("agent", "id"))
    counts = memory_counts(list(owners.values()))
    found = []
    for agent in sorted(by_agent | owners):
        row: Any = by_agent.get(agent, {"count": 0, "said": 0, "last_at": None})
        owner_id = owners.get(agent)
        found.append(
            WithAgent(
                agent=agent,
                owner_id=owner_id,
                memories=counts[owner_id] if owner_id else 0,
                conversations=row["count"],
                turns=row["said"],
                last_seen_at=row["last_at"],
            )
        )
    return found
