"""What tests of memory share: the built-in embedder as a process of its own, and turns that wait to be remembered."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from memory.embedders.client import EmbeddingModel, embedding_model
from memory.models import TurnState
from memory.turns import FinishedTurn, NewTurn, finish_turns, open_turns
from tests.factories import unique
from tests.waiting import eventually


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for_embedder(process: subprocess.Popen[bytes], port: int) -> None:
    def is_up() -> bool:
        assert process.poll() is None, "the embedder ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    eventually(is_up, what="the embedder answers", timeout_s=30)


@pytest.fixture
def free_port() -> int:
    return _free_port()


@pytest.fixture
def wait_for_embedder() -> Callable[[subprocess.Popen[bytes], int], None]:
    return _wait_for_embedder


@pytest.fixture(scope="session")
def embedder_port() -> Iterator[int]:
    """The port of a built-in embedder that runs as long as the session."""
    port = _free_port()
    process = subprocess.Popen([sys.executable, "-m", "memory.embedders.builtin", str(port)])
    _wait_for_embedder(process, port)
    yield port
    process.terminate()
    assert process.wait(10) == 0


@pytest.fixture
def embedder(embedder_port: int, settings: Any) -> EmbeddingModel:
    """The embedding model of the settings: the built-in one."""
    settings.EMBEDDER_URL = f"http://127.0.0.1:{embedder_port}/v1"
    settings.OUTBOUND_ALLOWED_HOSTS = [*settings.OUTBOUND_ALLOWED_HOSTS, f"127.0.0.1:{embedder_port}"]
    settings.OPENAI_API_KEY = settings.EMBEDDING_BASE_URL = ""
    model = embedding_model()
    assert model is not None
    return model


@pytest.fixture
def finish() -> Callable[..., UUID]:
    """Store a finished turn: `finish("I like green apples", "So do I.", session=…, remember=False, …)`; return its id."""

    def finish(message: str, reply: str = "", *, session: str = "", state: str = "done", remember: bool = True, **fields: Any) -> UUID:
        now = datetime.now(UTC)
        session = session or unique("session")
        turn = NewTurn(
            **{
                "id": uuid7(),
                "owner": "anonymous",
                "subject": session,
                "session_id": session,
                "agent": "companion",
                "version": 1,
                "message": message,
                "created_at": now,
                "deadline_at": now + timedelta(seconds=60),
                "recent_turns": 0,
                "recent_chars": 0,
                "remember": remember,
                **fields,
            }
        )
        open_turns([turn])
        if state != "running":
            assert finish_turns([FinishedTurn(id=turn.id, state=TurnState(state), reply=reply)]) == [True]
        return turn.id

    return finish
