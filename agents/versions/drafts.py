"""Drafts: the one version of an agent that may still change. An agent has at most one."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Max

from agents.errors import Conflict
from agents.models import Access, Agent, AgentVersion

from .content import PROVIDERS, copy_values, write_fallbacks


class SlugTaken(Conflict):
    """Two people chose the same address name, perhaps in the same second."""

    code = "agent-exists"
    title = "This address name is taken"
    remedy = "Choose another address name, or edit the agent that has it."


def create_agent(
    *, slug: str, name: str, author: AbstractBaseUser | None, description: str = "", access: str = Access.PUBLIC, **version_fields: Any
) -> Agent:
    """Create an agent and its first draft from `version_fields`.

    Raises:
        SlugTaken: another agent has this slug.
        IntegrityError: a value is out of its bounds (forms and documents check before).
    """
    with transaction.atomic():
        agent, is_new = Agent.objects.get_or_create(slug=slug, defaults={"name": name, "description": description, "access": access})
        if not is_new:
            raise SlugTaken(f"There is an agent {slug} already. {SlugTaken.remedy}")
        AgentVersion.objects.create(agent=agent, number=1, author=_saved(author), **version_fields)
    return agent


def start_draft(agent: Agent, *, author: AbstractBaseUser | None, based_on: AgentVersion | None = None) -> AgentVersion:
    """Return the agent's draft, made on the spot if there is none: two editors who start at once get the same one.

    A new draft is a copy of `based_on`, or of the live version, or of the newest, fallbacks included.

    Raises:
        ValueError: `based_on` is a version of another agent.
    """
    if based_on is not None and based_on.agent_id != agent.pk:
        raise ValueError(f"version {based_on.pk} is not one of {agent.slug}'s")
    with transaction.atomic():
        locked = lock_agent(agent)
        if draft := draft_of(locked):
            return draft
        source = based_on or locked.live_version or locked.versions.order_by("-number").first()
        draft = AgentVersion.objects.create(
            agent=locked,
            number=(locked.versions.aggregate(highest=Max("number"))["highest"] or 0) + 1,
            author=_saved(author),
            **(copy_values(source) if source else {}),
        )
        if source:
            write_fallbacks(draft, fallbacks=source.fallbacks.order_by("position").values_list("provider_id", "model"))
    return draft


def discard_draft(agent: Agent) -> None:
    """Delete the agent's draft, if there is one. Published versions stay."""
    with transaction.atomic():
        if draft := draft_of(lock_agent(agent)):
            draft.delete()


def draft_of(agent: Agent) -> AgentVersion | None:
    """Return the agent's draft, or None."""
    return agent.versions.filter(published_at=None).select_related("agent", *PROVIDERS, "author").first()


def lock_agent(agent: Agent) -> Agent:
    """Return the agent as it is now, locked until the transaction ends: drafts and publications of one agent queue here."""
    return Agent.objects.select_for_update(of=("self",)).get(pk=agent.pk)


def _saved(person: AbstractBaseUser | None) -> Any:
    # An anonymous user has no row to point to.
    return person if person is not None and person.pk is not None else None
