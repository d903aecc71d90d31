"""Asking an agent over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

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
