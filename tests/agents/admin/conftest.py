"""People who are signed in, and the fields that an edit page sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client

from agents.admin.drafts import version_to_edit
from agents.admin.simultaneous import basis_of
from agents.models import Agent
from tests.factories import make_user
from tests.live_server import LiveServer


@pytest.fixture
def sign_in(db: None) -> Callable[..., Client]:
    """`sign_in("editor")` returns a client of somebody in that role; "" has none, None is not signed in."""

    def sign_in(role: str | None, *, user: User | None = None) -> Client:
        client = Client(headers={"accept": "text/html"})
        if role is not None:
            client.force_login(user or make_user(role=role))
        return client

    return sign_in


@pytest.fixture
def editor(sign_in: Callable[..., Client]) -> Client:
    return sign_in("editor")


@pytest.fixture
def form_of() -> Callable[..., dict[str, Any]]:
    """Return what the edit page of an agent would send now, with some fields changed: `form_of(agent, temperature="0.5")`."""

    def form_of(agent: Agent, *, fallbacks: list[tuple[str, str]] | None = None, **changed: Any) -> dict[str, Any]:
        version = version_to_edit(Agent.objects.get(pk=agent.pk))
        names = [
            *("system_prompt", "greeting", "model", "temperature", "top_p", "max_output_tokens", "prompt_budget_tokens"),
            *("reply_cache_s", "memory_scope", "memory_limit", "memory_budget_tokens", "memory_threshold", "memory_cap", "memory_days"),
            *("simple_model", "simple_max_chars", "classifier_model", "classifier_instruction", "summary_model"),
            *("conversation_days", "trace_days", "reply_similarity", "note"),
        ]
        fields = {name: "" if getattr(version, name) is None else getattr(version, name) for name in names}
        fields |= {"provider": version.provider_id or "", "summary_provider": version.summary_provider_id or ""}
        fields |= {"simple_provider": version.simple_provider_id or "", "simple_not_words": "\r\n".join(version.simple_not_words)}
        fields |= {"classifier_provider": version.classifier_provider_id or ""}
        fields["knowledge"] = ",".join(version.knowledge)
        rows = (
            [(str(row.provider_id or "default"), row.model) for row in version.fallbacks.order_by("position")]
            if fallbacks is None
            else fallbacks
        )
        fields |= {"basis": basis_of(version), "fallbacks-TOTAL_FORMS": len(rows), "fallbacks-INITIAL_FORMS": 0}
        for position, (provider, model) in enumerate(rows):
            fields |= {f"fallbacks-{position}-provider": provider, f"fallbacks-{position}-model": model}
        return fields | changed

    return form_of


@pytest.fixture
def signed_in(server: LiveServer, live_db: None) -> Iterator[Callable[..., httpx2.Client]]:
    """`signed_in(user)` returns an HTTP client with that person's session and a CSRF token."""
    clients: list[httpx2.Client] = []

    def signed_in(user: User | None) -> httpx2.Client:
        client = server.client(headers={"X-CSRFToken": "c" * 32}, cookies={"csrftoken": "c" * 32})
        clients.append(client)
        if user is not None:
            session = SessionStore()
            session["_auth_user_id"] = str(user.pk)
            session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
            session["_auth_user_hash"] = user.get_session_auth_hash()
            session.create()
            client.cookies.set("sessionid", session.session_key)
        return client

    yield signed_in
    for client in clients:
        client.close()
