"""An agent's state at a glance, as the list and the start page show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.urls import reverse

from agents.models import Access, Agent, AgentVersion, Provider
from agents.versions.publishing import default_provider


@dataclass(frozen=True, kw_only=True)
class Label:
    """A few words in a coloured frame; the words alone say it all."""

    text: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What one line of a list says about an agent."""

    agent: Agent
    labels: list[Label]
    model: str
    provider: str
    is_demo: bool
    turns_today: int
    may_try: bool

    @property
    def is_public(self) -> bool:
        return self.agent.access == Access.PUBLIC

    @property
    def can_chat(self) -> bool:
        """Whether its chat page answers anybody who opens it."""
        return self.agent.is_active and self.agent.live_version_id is not None and self.is_public


def glance_at(agents: Iterable[Agent], *, turns: dict[str, int], may_try: bool) -> list[Glance]:
    """Return the glances of `agents` (loaded with their live version and its provider) in two queries, however many they are.

    `may_try`: whether the person who looks may open *Try it*.
    """
    agents = list(agents)
    drafts = {
        draft.agent_id: draft
        for draft in AgentVersion.objects.filter(agent__in=agents, published_at=None)
        .select_related("provider")
        .defer("system_prompt", "greeting")
    }
    default = default_provider()
    return [
        _glance(agent, draft=drafts.get(agent.pk), default=default, turns=turns.get(agent.slug, 0), may_try=may_try) for agent in agents
    ]


def urls_of(agents: Iterable[Agent]) -> dict[str, str]:
    """Return the address of each agent's page, by its slug."""
    return {agent.slug: reverse("admin:agents_agent_change", args=(agent.pk,)) for agent in agents}


def _glance(agent: Agent, *, draft: AgentVersion | None, default: Provider | None, turns: int, may_try: bool) -> Glance:
    version = agent.live_version or draft
    provider = (version.provider if version else None) or default
    model = (version.model if version else "") or (provider.default_model if provider else "")
    return Glance(
        agent=agent,
        labels=_labels(agent, draft=draft),
        model=model or "no model chosen",
        provider=provider.slug if provider else "no provider",
        is_demo=bool(provider and provider.is_demo),
        turns_today=turns,
        may_try=may_try,
    )


def _labels(agent: Agent, *, draft: AgentVersion | None) -> list[Label]:
    labels = []
    if not agent.is_active:
        labels.append(Label(text="switched off", kind="off"))
    if agent.live_version:
        # A switched-off agent keeps its version, but that version answers nobody.
        kind = "live" if agent.is_active else "quiet"
        labels.append(Label(text=f"live v{agent.live_version.number}" if agent.is_active else f"v{agent.live_version.number}", kind=kind))
    else:
        labels.append(Label(text="never published", kind="quiet"))
    if draft:
        labels.append(Label(text=f"draft v{draft.number} waiting" if agent.live_version else f"draft v{draft.number}", kind="draft"))
    return labels
