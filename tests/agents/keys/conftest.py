"""Calling with a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from agents.access.issuing import IssuedKey
from tests.live_server import LiveServer


@pytest.fixture
def calling(server: LiveServer) -> Iterator[Callable[..., httpx2.Client]]:
    """`calling(credential)` returns an HTTP client that sends an issued key, or a text as it is, as its Bearer credential."""
    clients: list[httpx2.Client] = []

    def calling(credential: IssuedKey | str) -> httpx2.Client:
        secret = credential if isinstance(credential, str) else credential.secret
        clients.append(server.client(headers={"Authorization": f"Bearer {secret}"}))
        return clients[-1]

    yield calling
    for client in clients:
        client.close()


@pytest.fixture
def chat() -> Callable[..., httpx2.Response]:
    """`chat(client, agent, **fields)` sends a message."""

    def chat(client: httpx2.Client, agent: Any, message: str = "Hello!", **fields: Any) -> httpx2.Response:
        slug = agent if isinstance(agent, str) else agent.slug
        return client.post(f"/api/chat/{slug}", json={"message": message, **fields})

    return chat


@pytest.fixture
def problem() -> Callable[..., dict[str, Any]]:
    """Check that a response is a problem document with this status, and return it without its request id."""

    def problem(response: httpx2.Response, status: int, error: str | None = None) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = response.json()
        assert error in (None, document["error"])
        del document["request_id"]
        return document

    return problem
