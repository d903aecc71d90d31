"""The API's own ASGI handler, over real sockets: what Django's stock handler guarantees must hold here too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.http import StreamingHttpResponse

from chatbot_site import handler
from memory.models import Turn
from tests.live_server import METRICS_TOKEN, LiveServer
from tests.upstream import Reply, Silence, Upstream
from tests.waiting import eventually

MakeAgent = Callable[..., Any]


@contextmanager
def connected(server: LiveServer, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", server.port))
    with connection:
        yield connection


def post(agent: str, message: str = "Hello", *, stream: bool = False) -> bytes:
    body = json.dumps({"message": message, "stream": stream}).encode()
    return head("POST", f"/api/chat/{agent}", f"Content-Length: {len(body)}") + body


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers, "", ""]).encode()


def read_response(connection: socket.socket, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
    """Read one response that has a Content-Length, and nothing of the next."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, f"the connection ended within the headers: {head!r}"
        head += byte
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    body = b""
    while has_body and len(body) < int(headers["content-length"]):
        body += connection.recv(65_536)
    return int(status.split()[1]), headers, body


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_the_model(server: LiveServer, upstream: Upstream, make_chat_agent: MakeAgent, stream: bool) -> None:
    upstream.script(Silence())
    agent = make_chat_agent(upstream)
    with connected(server) as connection:
        connection.sendall(post(agent.slug, stream=stream))
        upstream.wait_for_calls()
    upstream.wait_for_disconnect()
    eventually(lambda: Turn.objects.filter(agent=agent.slug, state="cancelled").count() == 1, what="the turn cancelled")


def test_a_client_that_stops_reading_and_then_leaves_cancels_the_model_too(
    start_server: Callable[..., LiveServer], upstream: Upstream, make_chat_agent: MakeAgent
) -> None:
    """The view is blocked in writing then, not in waiting for the model."""
    server = start_server(CHAT_MAX_REPLY_CHARS="5000000")
    upstream.script(Reply(chunks=["x" * 10_000], never_ends=True))
    agent = make_chat_agent(upstream)
    with connected(server, receive_buffer=4096) as connection:
        connection.sendall(post(agent.slug, stream=True))
        [call] = upstream.wait_for_calls()
        received = b""
        while b"xxx" not in received:  # the server has some of it
            part = connection.recv(1000)
            assert part, received
            received += part
        sent = -1
        while sent != call.chunks_sent:  # until nothing flows any more
            sent = call.chunks_sent
            time.sleep(0.2)
    upstream.wait_for_disconnect()
    turn = eventually(lambda: Turn.objects.filter(agent=agent.slug, state="cancelled").first(), what="the turn cancelled")
    assert turn.reply.startswith("xxx")


def test_a_client_that_leaves_before_its_body_is_complete_asks_no_model(
    server: LiveServer, upstream: Upstream, make_chat_agent: MakeAgent
) -> None:
    agent = make_chat_agent(upstream)
    with connected(server) as connection:
        connection.sendall(post(agent.slug)[:-5])
    with connected(server) as connection:
        connection.sendall(post(agent.slug))
        assert read_response(connection)[0] == 200
    assert len(upstream.calls) == 1
    assert Turn.objects.filter(agent=agent.slug).count() == 1


def lines_of(server: LiveServer, request_id: str) -> list[dict[str, Any]]:
    """Return what was logged of a request when it ended."""
    lines = [json.loads(line) for line in server.log().splitlines() if request_id in line]
    return [line for line in lines if line["event"] == "request"]


def test_a_client_that_leaves_before_its_answer_begins_leaves_a_line(
    server: LiveServer, upstream: Upstream, make_chat_agent: MakeAgent
) -> None:
    upstream.script(Silence())
    agent, request_id = make_chat_agent(upstream), f"left-{uuid.uuid4()}"
    body = json.dumps({"message": "Hello"}).encode()
    with connected(server) as connection:
        connection.sendall(head("POST", f"/api/chat/{agent.slug}", f"Content-Length: {len(body)}", f"X-Request-ID: {request_id}") + body)
        upstream.wait_for_calls()
    [line] = eventually(lambda: lines_of(server, request_id), what="the line of the request")
    assert (line["method"], line["path"], line["status"]) == ("POST", f"/api/chat/{agent.slug}", 499)


def test_a_client_that_leaves_during_its_body_is_counted_and_leaves_one_line_with_the_time_that_it_took(server: LiveServer) -> None:
    def counted() -> int:
        with server.client() as client:
            text = client.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}).text
        found = re.search(r'^chatbot_http_responses_total{method="POST",route="other",status="499"} (\d+)', text, re.MULTILINE)
        return int(found[1]) if found else 0

    request_id, before = f"left-{uuid.uuid4()}", counted()
    with connected(server) as connection:
        connection.sendall(head("POST", "/api/chat/any", "Content-Length: 20", f"X-Request-ID: {request_id}", "Expect: 100-continue"))
        assert b"100 Continue" in connection.recv(1000)  # from here on the server waits for the body
        for byte in (b"{", b'"', b"m"):
            connection.sendall(byte)
            time.sleep(0.1)
    eventually(lambda: lines_of(server, request_id), what="the line of the request")
    with connected(server) as connection:
        connection.sendall(head("GET", "/api/nowhere"))
        assert read_response(connection)[0] == 404
    [line] = lines_of(server, request_id)
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/chat/any", 499)
    assert line["latency_ms"] >= 300
    assert counted() > before


def test_a_connection_serves_many_requests(server: LiveServer, upstream: Upstream, make_chat_agent: MakeAgent) -> None:
    agent = make_chat_agent(upstream)
    with connected(server) as connection:
        for number in range(3):
            connection.sendall(post(agent.slug, f"message {number}"))
            assert read_response(connection)[0] == 200
            connection.sendall(head("HEAD", "/health"))
            assert read_response(connection, has_body=False)[0] == 200
            connection.sendall(head("GET", "/api/nowhere"))
            status, headers, body = read_response(connection)
            assert (status, headers["content-type"]) == (404, "application/problem+json")
            assert json.loads(body)["request_id"] == headers["x-request-id"]


def test_a_body_in_chunks_without_a_length_is_read(server: LiveServer, upstream: Upstream, make_chat_agent: MakeAgent) -> None:
    agent = make_chat_agent(upstream)
    start = head("POST", f"/api/chat/{agent.slug}", "Transfer-Encoding: chunked")
    with connected(server) as connection:
        connection.sendall(start + b'd\r\n{"message": "\r\n')
        connection.sendall(b'8\r\nin two"}\r\n0\r\n\r\n')
        status, _, body = read_response(connection)
    assert (status, json.loads(body).get("error")) == (200, None)
    assert upstream.calls[0].messages[-1]["content"] == "in two"


def test_a_body_in_chunks_over_the_limit_is_refused_before_its_end(server: LiveServer) -> None:
    start = head("POST", "/api/chat/any", "Transfer-Encoding: chunked")
    with connected(server) as connection:
        connection.sendall(start)
        with contextlib.suppress(BrokenPipeError):  # it need not wait for the rest
            for _ in range(30):
                connection.sendall(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
        status, headers, body = read_response(connection)
    assert (status, headers["content-type"]) == (413, "application/problem+json")
    assert json.loads(body)["request_id"] == headers["x-request-id"]


def test_a_silent_stream_gets_comments_between_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "HEARTBEAT_S", 0.02)
    sent: list[bytes] = []
    three_beats = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b""))
        if sent.count(handler.HEARTBEAT) == 3:
            three_beats.set()

    async def events() -> AsyncIterator[bytes]:
        yield b"event: start\n\n"
        await three_beats.wait()
        yield b"event: done\n\n"

    async def run() -> None:
        async with asyncio.timeout(60):
            await handler.ApiHandler()._send(StreamingHttpResponse(events()), send)
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == 1  # no heart goes on beating

    asyncio.run(run())
    assert [part for part in sent if part and part != handler.HEARTBEAT] == [b"event: start\n\n", b"event: done\n\n"]
    assert sent[-2:] == [b"event: done\n\n", b""]


@pytest.mark.parametrize("watched_after_s", [0.0, 60.0])
@pytest.mark.parametrize("has_left", [True, False])
def test_a_client_that_left_is_told_from_a_server_that_stops(
    monkeypatch: pytest.MonkeyPatch, watched_after_s: float, has_left: bool
) -> None:
    monkeypatch.setattr(handler, "_WATCH_AFTER_S", watched_after_s)

    async def run(*, turns: int) -> bool:
        gone = asyncio.Event()

        is_closed = False

        async def receive() -> dict[str, str]:
            nonlocal is_closed
            try:
                if not is_closed:
                    await gone.wait()
            finally:
                is_closed = True  # as gunicorn has it, even if whoever waited for it is cancelled
            return {"type": "http.disconnect"}

        async def answer() -> bool:
            watch = handler._Watch(receive)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return await watch.has_client_left()
            finally:
                watch.end()
            return False

        task = asyncio.create_task(answer())
        for _ in range(turns):
            await asyncio.sleep(0)
        if has_left:
            gone.set()
        task.cancel()  # as gunicorn does in the same moment
        return await task

    # The watch begins sooner or later than that, or in this very moment.
    for turns in range(1, 6):
        assert asyncio.run(run(turns=turns)) is has_left


def test_script_names_and_odd_paths_do_not_break_it(server: LiveServer) -> None:
    for path in ("/api/chat/%00", "/api/chat/%ff", "/api//chat", "/api/chat/a%2fb", "/api/chat/%ed%a0%80", "/api/?" + "x" * 2000):
        with connected(server) as connection:
            body = b'{"message": "Hello"}'
            connection.sendall(head("POST", path, f"Content-Length: {len(body)}") + body)
            status, headers, _ = read_response(connection)
            assert (status, headers["content-type"]) in {(404, "application/problem+json"), (400, "application/problem+json")}, path
