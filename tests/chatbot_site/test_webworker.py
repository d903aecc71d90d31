"""A process that is asked to stop takes leave of connections that a proxy keeps open, before it closes them."""

from __future__ import annotations

import http.client
import json
import socket

from tests.upstream import Gate, Reply
from tests.waiting import eventually


def ask(connection: http.client.HTTPConnection, slug: str, *, stream: bool) -> http.client.HTTPResponse:
    body = json.dumps({"message": "Hello", "stream": stream})
    connection.request("POST", f"/api/chat/{slug}", body, {"Content-Type": "application/json"})
    return connection.getresponse()


def test_the_next_request_after_a_stream_is_answered_and_told_to_be_the_last(make_chat_agent, upstream, start_server):
    gate = Gate()
    upstream.script(Reply("one two", gate=gate, gate_before_chunk=2), Reply("three"))
    agent = make_chat_agent(upstream)
    server = start_server()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    begun = ask(connection, agent.slug, stream=True)
    assert begun.headers["Connection"] != "close"
    upstream.wait_until(lambda calls: bool(calls) and calls[0].chunks_sent >= 1, "the answer begun")
    server.ask_to_stop()
    eventually(lambda: not _takes_connections(server.port), what="it takes no new connections")
    gate.open()
    assert b"event: done" in begun.read()

    last = ask(connection, agent.slug, stream=False)
    assert (last.status, last.headers["Connection"]) == (200, "close")
    assert json.loads(last.read())["reply"] == "three"
    connection.close()
    eventually(lambda: not server.is_running, what="the server gone", timeout_s=15)  # by itself: others are interrupted after 20 s


def _takes_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(20)
        if probe.connect_ex(("127.0.0.1", port)):
            return False
        try:
            probe.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return bool(probe.recv(1))
        except OSError:
            return False


def test_a_process_that_is_only_starting_stops_at_once(monkeypatch):
    from chatbot_site import leaving
    from chatbot_site.webworker import WebWorker

    monkeypatch.setattr(leaving, "_asked", False)
    worker = WebWorker.__new__(WebWorker)
    worker.alive, worker.servers = True, []
    worker.handle_exit_signal()
    assert not worker.alive
    assert not leaving.is_leaving()
