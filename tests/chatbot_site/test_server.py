"""The beginning and the end of a process: what it interrupts is stored, what others left behind is swept up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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


@pytest.mark.parametrize(("stream", "state", "reply"), [(True, "interrupted", "one"), (False, "failed", "")])
def test_what_does_not_end_in_time_after_sigterm_is_interrupted_and_stored(
    start_server: StartServer, upstream: Upstream, make_chat_agent: Callable[..., Any], stream: bool, state: str, reply: str
) -> None:
    upstream.script(Reply("one two", gate=Gate(), gate_before_chunk=2 if stream else 1))
    agent = make_chat_agent(upstream)
    server = start_server(GUNICORN_CMD_ARGS="--graceful-timeout 7")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(post(agent.slug, stream=stream))
        upstream.wait_until(lambda calls: bool(calls) and calls[0].chunks_sent >= stream, "the answer begun")
        if stream:
            received = b""
            while b"one" not in received:
                received += connection.recv(65_536)
        asked_at = time.monotonic()
        server.ask_to_stop()
        turn = eventually(
            lambda: Turn.objects.filter(agent=agent.slug).exclude(state="running").first(), what="the turn ended", timeout_s=9
        )
        assert (turn.state, turn.reply, turn.error_code) == (state, reply, "stopped")
        eventually(lambda: not server.is_running, what="the server gone", timeout_s=5)
    assert time.monotonic() - asked_at < 6.5  # by itself, not killed
    upstream.wait_for_disconnect(timeout_s=1)


def test_an_idle_connection_does_not_keep_a_server_for_ever(start_server: StartServer) -> None:
    server = start_server(GUNICORN_CMD_ARGS="--graceful-timeout 7")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        server.ask_to_stop()
        eventually(lambda: not server.is_running, what="the server gone", timeout_s=6)  # by itself, before it would be killed


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
