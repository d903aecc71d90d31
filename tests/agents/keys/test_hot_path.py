"""A request with a key that is in use visits the database as often as one without: to open its turn, and to close it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import AsyncRequestFactory
from pytest_django import Settings

from agents.access.issuing import IssuedKey
from agents.providers.wire import _endpoint, _transport
from agents.rest.views import AgentView, ChatView
from observability import bursts
from tests.factories import make_key


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Every visit to the database that was made meanwhile."""
    made: list[Callable[[], Any]] = []
    visit = bursts._in_transaction

    def visit_and_note(function: Callable[[], Any]) -> Any:
        made.append(function)
        return visit(function)

    monkeypatch.setattr(bursts, "_in_transaction", visit_and_note)
    return made


def chat(slug: str, headers: dict[str, str]) -> Any:
    body = json.dumps({"message": "Hi", **({"user": "ada"} if headers else {})})
    request = AsyncRequestFactory().post(f"/api/chat/{slug}", body, content_type="application/json", headers=headers)
    return ChatView.as_view()(request, agent=slug)


def describe(slug: str, headers: dict[str, str]) -> Any:
    return AgentView.as_view()(AsyncRequestFactory().get(f"/api/agents/{slug}", headers=headers), agent=slug)


def waited_for(visits: list[Callable[[], Any]]) -> list[Callable[[], Any]]:
    """Without those that follow the clock and not the requests: agents are read twice a second, limits every other, and so on."""
    by_the_clock = ("load_live", "_note_use", "read_limits", "active_budgets", "_read_sparing", "read_prices", "read_calibrations")
    return [visit for visit in visits if not any(name in repr(visit) for name in by_the_clock)]


@pytest.fixture(autouse=True)
def _fresh_client(settings: Settings) -> Iterator[None]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    _endpoint.cache_clear()
    _transport.cache_clear()
    yield
    _endpoint.cache_clear()
    _transport.cache_clear()


@pytest.mark.parametrize("kind", ["nothing", "key", "token"])
def test_a_warm_request_visits_the_database_twice(make_chat_agent, upstream, visits, api, kind):
    agent = make_chat_agent(upstream)
    headers = headers_of(kind, make_key(agent), api)

    async def ask() -> None:
        assert (await chat(agent.slug, headers)).status_code == 200
        for _ in range(3):
            visits.clear()
            assert (await describe(agent.slug, headers)).status_code == 200
            assert waited_for(visits) == []
            assert (await chat(agent.slug, headers)).status_code == 200
            assert len(waited_for(visits)) == 2
        await _transport().aclose()

    asyncio.run(ask())


def headers_of(kind: str, key: IssuedKey, api: Any) -> dict[str, str]:
    headers = {"authorization": f"Bearer {key.secret}"}
    if kind == "token":
        answer = api.post("/api/tokens", json={"user": "ada"}, headers=headers)
        return {"authorization": f"Bearer {answer.json()['token']}"}
    return headers if kind == "key" else {}
