"""Publishing and rolling back: the two ways in which an agent's live version changes.

Each takes the agent's row lock, moves the pointer and appends a `Publication`, all in one transaction. A version that was
published stays for ever, so an agent that was ever live is switched off (`is_active`) rather than deleted.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.utils import timezone

from agents.errors import Conflict
from agents.models import Agent, AgentVersion, Provider, Publication

from .drafts import lock_agent


class NotPublishable(Conflict):
    """The version lacks something that it needs to answer, or is no draft any more."""

    code = "not-publishable"
    title = "This version cannot be published"
    remedy = "Complete the draft, then publish it again."


class NotRestorable(Conflict):
    """The version is not one that the agent can go back to."""

    code = "not-restorable"
    title = "The agent cannot go back to this version"
    remedy = "Choose a version that was live before."


def publish(version: AgentVersion, *, actor: AbstractBaseUser | None) -> Publication:
    """Make the draft `version` live.

    Raises:
        NotPublishable: it was published or discarded meanwhile, or is incomplete; `fields` says what to do about each field.
    """
    with transaction.atomic():
        agent = lock_agent(version.agent)
        draft = AgentVersion.objects.select_for_update(of=("self",)).filter(pk=version.pk, agent=agent).first()
        if draft is None:
            raise NotPublishable("This draft was discarded. Reload the page and start a new one.")
        if draft.published_at is not None:
            raise NotPublishable(f"Version {draft.number} was published already. Reload the page to see the current state.")
        if fields := missing_for_publication(draft):
            raise NotPublishable(" ".join(text for texts in fields.values() for text in texts), fields=fields)
        draft.published_at = timezone.now()
        draft.save(update_fields=["published_at"])
        publication = _make_live(agent, draft, kind=Publication.Kind.PUBLISH, actor=actor)
    version.published_at = draft.published_at
    return publication


def roll_back(agent: Agent, *, to: AgentVersion, actor: AbstractBaseUser | None) -> Publication:
    """Make the published version `to` live again. Nothing is copied: the same version answers as before.

    Raises:
        NotRestorable: `to` is another agent's, was never published, or is live now.
    """
    with transaction.atomic():
        agent = lock_agent(agent)
        target = AgentVersion.objects.filter(pk=to.pk, agent=agent).first()
        if target is None:
            raise NotRestorable("This version belongs to another agent, or was discarded. Choose one from the agent's own history.")
        if target.published_at is None:
            raise NotRestorable(f"Version {target.number} is a draft. Publish it instead.")
        if agent.live_version_id == target.pk:
            raise NotRestorable(f"Version {target.number} is live already. Reload the page to see the current state.")
        return _make_live(agent, target, kind=Publication.Kind.ROLL_BACK, actor=actor)


def missing_for_publication(version: AgentVersion) -> dict[str, list[str]]:
    """Return what `version` still needs before it can answer, as field -> what to do; empty when it is complete."""
    missing: dict[str, list[str]] = {}
    if not version.system_prompt.strip():
        missing["system_prompt"] = ["Write the instructions (system prompt): who the agent is and how it speaks."]
    provider = version.provider or default_provider()
    if provider is None:
        missing["provider"] = ["Choose a provider, or ask an operator to mark one as the default."]
    elif not (version.model or provider.default_model):
        missing["model"] = [f"Name a model, or ask an operator to give the provider {provider.slug} a default model."]
    cheaper = version.simple_provider
    if cheaper is not None and not (version.simple_model or cheaper.default_model):
        missing["simple_model"] = [f"Name the cheaper model: the provider {cheaper.slug} has no default model."]
    classifier = version.classifier_provider if version.classifier_enabled else None
    if classifier is not None and not (version.classifier_model or classifier.default_model):
        missing["classifier_model"] = [f"Name the model that is asked: the provider {classifier.slug} has no default model."]
    background = version.summary_provider
    if background is not None and not (version.summary_model or background.default_model):
        missing["summary_model"] = [f"Name a model for summaries and facts: the provider {background.slug} has no default model."]
    for fallback in version.fallbacks.select_related("provider").order_by("position"):
        substitute = fallback.provider or default_provider()
        if substitute is None:
            missing.setdefault("fallbacks", []).append(
                f"Fallback {fallback.position} needs a provider: choose one, or remove the fallback."
            )
        elif not (fallback.model or substitute.default_model):
            missing.setdefault("fallbacks", []).append(f"Fallback {fallback.position} needs a model: name one, or remove the fallback.")
    return missing


def default_provider() -> Provider | None:
    """Return the provider of versions that name none, or None if there is none."""
    return Provider.objects.filter(is_default=True).first()


def _make_live(agent: Agent, version: AgentVersion, *, kind: str, actor: AbstractBaseUser | None) -> Publication:
    agent.live_version = version
    agent.save(update_fields=["live_version", "updated_at"])
    person: Any = actor if actor is not None and actor.pk is not None else None
    return Publication.objects.create(agent=agent, version=version, kind=kind, actor=person)
