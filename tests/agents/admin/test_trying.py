"""*Try it*: the unpublished draft answers, for editors only, apart from the public."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from agents.models import Agent
from memory.models import Turn
from observability.models import Budget
from tests.factories import make_user, make_version, unique
from tests.upstream import Upstream
from tests.waiting import eventually


def path(agent: Agent) -> str:
    return f"/admin/agents/agent/{agent.pk}/try/chat"


def test_the_draft_answers_an_editor(make_chat_agent: Any, upstream: Upstream, signed_in: Callable[..., httpx2.Client]) -> None:
    agent = make_chat_agent(upstream, system_prompt="Live words.")
    make_version(agent, published=False, system_prompt="Drafted words.")
    editor = make_user(role="editor")
    response = signed_in(editor).post(path(agent), json={"message": "Hello?"})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert "event: done" in response.text
    assert "Drafted words." in str(upstream.calls[-1].body)
    turn = Turn.objects.get(agent=agent.slug)
    assert (turn.version, turn.conversation.owner) == (2, f"editor:{editor.pk}")


@pytest.mark.parametrize("role", [None, "", "operator"])
def test_nobody_else_may_try(role: str | None, make_chat_agent: Any, upstream: Upstream, signed_in: Callable[..., httpx2.Client]) -> None:
    agent = make_chat_agent(upstream)
    response = signed_in(None if role is None else make_user(role=role)).post(path(agent), json={"message": "Hello?"})
    assert response.status_code == 403
    assert not Turn.objects.filter(agent=agent.slug).exists()


def test_csrf_is_checked(make_chat_agent: Any, upstream: Upstream, signed_in: Callable[..., httpx2.Client]) -> None:
    agent = make_chat_agent(upstream)
    client = signed_in(make_user(role="editor"))
    assert client.post(path(agent), json={"message": "Hello?"}, headers={"X-CSRFToken": "d" * 32}).status_code == 403
    assert not Turn.objects.filter(agent=agent.slug).exists()


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b'{"message": ""}', b'{"message": 1}', b'{"message": "\\ud800"}', b'{"other": 1}'])
def test_unusable_messages_are_refused(
    body: bytes, make_chat_agent: Any, upstream: Upstream, signed_in: Callable[..., httpx2.Client]
) -> None:
    agent = make_chat_agent(upstream)
    response = signed_in(make_user(role="editor")).post(path(agent), content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]


def test_unknown_agents_and_methods(signed_in: Callable[..., httpx2.Client]) -> None:
    client = signed_in(make_user(role="editor"))
    assert client.post("/admin/agents/agent/999999999/try/chat", json={"message": "Hi"}).status_code == 404
    assert client.get("/admin/agents/agent/999999999/try/chat").status_code == 405


def test_a_spent_budget_says_when_to_try_again(
    make_chat_agent: Any, upstream: Upstream, signed_in: Callable[..., httpx2.Client], request: pytest.FixtureRequest
) -> None:
    agent = make_chat_agent(upstream)
    budget = Budget.objects.create(name=unique("budget"), agent=agent.slug, scope="agent", limit_tokens=0)
    request.addfinalizer(budget.delete)
    client = signed_in(make_user(role="editor"))
    response = eventually(
        lambda: answer if (answer := client.post(path(agent), json={"message": "Hi"})).status_code != 200 else None, what="the budget holds"
    )
    assert response.status_code == 402
    assert "It resets at" in response.json()["detail"]
    assert 0 < int(response.headers["Retry-After"]) <= 32 * 86_400
