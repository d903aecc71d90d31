"""Rows for tests: plain functions, each with sensible values, every slug and name unique."""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import Group, User

from agents import roles
from agents.access.issuing import IssuedKey, issue_key
from agents.models import Agent, AgentVersion, KeyOwner, Provider
from agents.versions.drafts import create_agent, draft_of, start_draft
from agents.versions.publishing import publish
from memory.features import features_of
from memory.isolation import acting_for
from memory.models import MemoryOwner, Origin, Speaker
from memory.storing import NewPassage, store_alone

_counter = itertools.count(1)
AGENT_FIELDS = ("name", "description", "access")


def unique(prefix: str) -> str:
    """Return `prefix` with two numbers: no two tests meet, not even in two processes.

    The last character is a digit, so that a stemmer leaves the word as it is: letters could end it in "ed" or "e".
    """
    return f"{prefix}-{next(_counter)}-{uuid.uuid4().int % 10**10:010d}"


def make_provider(*, slug: str = "", base_url: str = "http://127.0.0.1:9/v1", default_model: str = "test-model", **fields: Any) -> Provider:
    """Create a provider; `is_default=True` takes that mark from any other."""
    if fields.get("is_default"):
        Provider.objects.filter(is_default=True).update(is_default=False)
    return Provider.objects.create(slug=slug or unique("provider"), base_url=base_url, default_model=default_model, **fields)


def make_agent(*, slug: str = "", published: bool = True, is_active: bool = True, author: User | None = None, **fields: Any) -> Agent:
    """Create an agent with version 1, live unless `published=False`; other fields are the agent's or the version's.

    Where no provider is given and there is no default one, a provider is made.
    """
    slug = slug or unique("agent")
    fields.setdefault("name", slug.title())
    fields.setdefault("system_prompt", "You are a friendly test agent.")
    if "provider" not in fields and not Provider.objects.filter(is_default=True).exists():
        fields["provider"] = make_provider()
    agent = create_agent(slug=slug, author=author, **fields)
    if published:
        draft = draft_of(agent)
        assert draft is not None
        publish(draft, actor=author)
    if not is_active:
        Agent.objects.filter(pk=agent.pk).update(is_active=False)
    agent.refresh_from_db()
    return agent


def make_version(agent: Agent, *, published: bool = True, author: User | None = None, **version_fields: Any) -> AgentVersion:
    """Give `agent` its next version with these fields changed, live unless `published=False`."""
    draft = start_draft(agent, author=author)
    for name, value in version_fields.items():
        setattr(draft, name, value)
    draft.save()
    if published:
        publish(draft, actor=author)
    agent.refresh_from_db()
    draft.refresh_from_db()
    return draft


def make_user(*, role: str = "", username: str = "", password: str = "", **fields: Any) -> User:
    """Create a person: `role` is "editor", "operator" or "superuser"; "" is somebody without any right."""
    assert role in ("", "editor", "operator", "superuser"), role
    fields.setdefault("is_staff", bool(role))
    user = User.objects.create_user(username or unique("user"), password=password or None, is_superuser=role == "superuser", **fields)
    if role in ("editor", "operator"):
        roles.create_groups()
        user.groups.add(Group.objects.get(name=roles.EDITORS if role == "editor" else roles.OPERATORS))
    return user


def make_key_owner(**fields: Any) -> KeyOwner:
    """Create somebody who uses keys."""
    slug = unique("owner")
    return KeyOwner.objects.create(**{"slug": slug, "name": slug.title(), **fields})


def make_key(*agents: Agent, owner: KeyOwner | None = None, scopes: tuple[str, ...] = ("chat",), **fields: Any) -> IssuedKey:
    """Make a key for `agents`; its `secret` is what a client sends."""
    return issue_key(owner or make_key_owner(), **{"name": "a key", "scopes": scopes, "agents": agents, **fields})


def make_passage(owner: MemoryOwner, text: str, **fields: Any) -> int:
    """Store a memory of `owner` by itself, without vectors, and return its id."""
    now = datetime.now(UTC)
    features = features_of(text, said_on=now.date())
    fields = {"origin": Origin.ADDED, "speaker": Speaker.NOTE, "author": "anna"} | fields
    with acting_for([owner.pk]):
        [id] = store_alone([NewPassage(owner_id=owner.pk, said_at=now, text=text, features=features, vectors=(), **fields)], model=None)
    assert id is not None
    return id


def forget_vectors() -> None:
    """Begin without any embedding model in use: a test before may have embedded with another one."""
    from memory.models import EmbeddingSpace, Sentence, WideSentence

    for table in (Sentence, WideSentence, EmbeddingSpace):
        table.objects.all().delete()
