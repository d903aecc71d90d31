"""The beginning and the end of a process: what it interrupts is stored, what others left behind is swept up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from uuid_utils.compat import uuid7

from memory.api import NewTurn, open_turns
from memory.models import Turn
from tests.factories import unique
from tests.live_server import LiveServer
from tests.upstream import Gate, Reply, Upstream
from tests.waiting import eventually

StartServer = Callable[..., LiveServer]


def post(agent: str, *, stream: bool) -> bytes:
    body = json.dumps({"message": "Hello", "stream": stream}).encode()
    lines = [
        f"POST /api/chat/{agent} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


# After SIGTERM a worker interrupts what still runs 2 s later, and is killed 27 s later: far more time to store it than is shipped,
# whoever else uses the machine. One that ends sooner did so by itself.
PATIENT = """
from pathlib import Path
exec(Path("gunicorn.conf.py").read_text())
graceful_timeout, TO_STORE_S = 27, 25
"""
BY_ITSELF_S = 26


@pytest.fixture
def patient_server(start_server: StartServer, tmp_path: Path) -> LiveServer:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(PATIENT)
    return start_server(GUNICORN_CMD_ARGS=f"--config {config}")


@pytest.mark.parametrize(("stream", "state", "reply"), [(True, "interrupted", "one"), (False, "failed", "")])
def test_what_does_not_end_in_time_after_sigterm_is_interrupted_and_stored(
    patient_server: LiveServer, upstream: Upstream, make_chat_agent: Callable[..., Any], stream: bool, state: str, reply: str
) -> None:
    upstream.script(Reply("one two", gate=Gate(), gate_before_chunk=2 if stream else 1))
    agent = make_chat_agent(upstream)
    with socket.create_connection(("127.0.0.1", patient_server.port), timeout=60) as connection:
        connection.sendall(post(agent.slug, stream=stream))
        upstream.wait_until(lambda calls: bool(calls) and calls[0].chunks_sent >= stream, "the answer begun")
        if stream:
            received = b""
            while b"one" not in received:
                received += connection.recv(65_536)
        asked_at = time.monotonic()
        patient_server.ask_to_stop()
        turn = eventually(lambda: Turn.objects.filter(agent=agent.slug).exclude(state="running").first(), what="the turn ended")
        assert (turn.state, turn.reply, turn.error_code) == (state, reply, "stopped")
        eventually(lambda: not patient_server.is_running, what="the server gone")
    assert time.monotonic() - asked_at < BY_ITSELF_S
    upstream.wait_for_disconnect()


def test_an_idle_connection_does_not_keep_a_server_for_ever(patient_server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", patient_server.port), timeout=60) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        patient_server.ask_to_stop()
        eventually(lambda: not patient_server.is_running, what="the server gone", timeout_s=BY_ITSELF_S)


def test_turns_that_a_dead_process_left_behind_are_ended_at_the_next_start(live_db: None, start_server: StartServer) -> None:
    now = datetime.now(UTC)
    session = unique("s")
    turn = NewTurn(
        id=uuid7(),
        owner="anonymous:test",
        subject=session,
        session_id=session,
        agent="support",
        version=1,
        message="Hello",
        created_at=now - timedelta(seconds=90),
        deadline_at=now - timedelta(seconds=1),
        recent_turns=0,
        recent_chars=0,
    )
    with transaction.atomic():
        open_turns([turn])
    start_server()
    stored = eventually(lambda: Turn.objects.filter(pk=turn.id).exclude(state="running").first(), what="the turn ended")
    assert (stored.state, stored.error_code) == ("failed", "left-behind")
