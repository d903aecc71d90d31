"""Asking an agent over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from django.db import transaction
from uuid_utils.compat import uuid7

from agents.access.issuing import IssuedKey
from memory.models import TurnState
from memory.turns import FinishedTurn, NewTurn, finish_turns, open_turns
from tests.live_server import LiveServer, live_server
from tests.sse import Event, read_events


@pytest.fixture
def ask(api: httpx2.Client) -> Callable[..., httpx2.Response]:
    """POST a message to an agent: `ask(agent, "Hello", session_id="s")`."""

    def ask(agent: Any, message: Any = "Hello!", *, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        slug = agent if isinstance(agent, str) else agent.slug
        return api.post(f"/api/chat/{slug}", json={"message": message, **fields}, headers=headers)

    return ask


@pytest.fixture
def ask_for_events(ask: Callable[..., httpx2.Response]) -> Callable[..., list[Event]]:
    """The same, answered by a stream; returns its events."""

    def ask_for_events(agent: Any, message: str = "Hello!", **fields: Any) -> list[Event]:
        response = ask(agent, message, headers={"Accept": "text/event-stream"}, **fields)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return read_events(response.text)

    return ask_for_events


@pytest.fixture
def problem() -> Callable[..., dict[str, Any]]:
    """Check that a response is a whole problem document with this status, and return it."""

    def problem(response: httpx2.Response, status: int, error: str | None = None) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        document = response.json()
        assert {"type", "title", "status", "detail", "request_id", "error"} <= set(document)
        assert document["status"] == status
        assert document["error"] == document["title"]
        assert document["detail"]
        assert document["request_id"] == response.headers["x-request-id"]
        assert document["type"].startswith("/errors/")
        assert "Traceback" not in response.text
        if error is not None:
            assert document["error"] == error
        return document

    return problem


@pytest.fixture(scope="session")
def _remembering_server(server_environment: dict[str, str], embedder_port: int) -> Iterator[LiveServer]:
    with live_server(environment={**server_environment, "EMBEDDER_URL": f"http://127.0.0.1:{embedder_port}/v1"}) as server:
        yield server


@pytest.fixture
def calling(
    _remembering_server: LiveServer, live_db: None, watch_log: Callable[[LiveServer], None]
) -> Iterator[Callable[..., httpx2.Client]]:
    """`calling(credential)` returns a client of a server that embeds, with an issued key or a token as its Bearer credential."""
    clients: list[httpx2.Client] = []
    watch_log(_remembering_server)

    def calling(credential: IssuedKey | str) -> httpx2.Client:
        secret = credential if isinstance(credential, str) else credential.secret
        clients.append(_remembering_server.client(headers={"Authorization": f"Bearer {secret}"}))
        return clients[-1]

    yield calling
    for client in clients:
        client.close()


@pytest.fixture
def token_of(calling: Callable[..., httpx2.Client]) -> Callable[..., str]:
    """`token_of(key, "ada")` returns a token with which the user manages their memories."""

    def token_of(key: IssuedKey, user: str) -> str:
        answer = calling(key).post("/api/tokens", json={"user": user, "scopes": ["manage_memories"]})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    return token_of


@pytest.fixture
def converse() -> Callable[..., UUID]:
    """Store a finished turn of a key's user: `converse(key, agent, "ada", "I like plums.", "Me too.", session="s")`."""

    def converse(
        key: IssuedKey, agent: Any, user: str, message: str, reply: str = "I see.", *, session: str = "s", remember: bool = False
    ) -> UUID:
        now = datetime.now(UTC)
        turn = NewTurn(
            id=uuid7(),
            owner=f"owner:{key.key.owner_id}",
            subject=user or f"session/{session}",
            session_id=session,
            agent=agent.slug,
            version=1,
            message=message,
            created_at=now,
            deadline_at=now + timedelta(seconds=60),
            recent_turns=0,
            recent_chars=0,
            remember=remember,
        )
        with transaction.atomic():
            open_turns([turn])
            finish_turns([FinishedTurn(id=turn.id, state=TurnState.DONE, reply=reply)])
        return turn.id

    return converse
