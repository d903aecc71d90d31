"""Bodies sent to pages: bounded like those of the API, whoever sends them. And what is no plain HTTP request."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.live_server import LiveServer

LIMIT_BYTES = 2_500_000


@pytest.fixture
def sent_to_page(server: LiveServer) -> Callable[[str], tuple[bytes, int]]:
    """Send 20 MB in chunks, never ending, to a path; return the status line and the most that was spooled to disk."""

    def sent_to_page(path: str) -> tuple[bytes, int]:
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: multipart/form-data; boundary=x", "Transfer-Encoding: chunked"]
        piece, spooled_bytes = b"186a0\r\n" + b"x" * 100_000 + b"\r\n", 0
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            try:
                for _ in range(200):
                    connection.sendall(piece)
                    spooled_bytes = max(spooled_bytes, _spooled_bytes(server))
            except ConnectionError:  # it has answered and hung up
                pass
            try:
                answer = connection.recv(65_536)
            except ConnectionError:
                answer = b""
        return answer.split(b"\r\n")[0], spooled_bytes

    return sent_to_page


def _spooled_bytes(server: LiveServer) -> int:
    total = 0
    for worker in server.workers:
        for link in Path(f"/proc/{worker.pid}/fd").iterdir():
            try:
                total += link.stat().st_size if "(deleted)" in str(link.readlink()) else 0
            except OSError:  # closed in the meantime
                continue
    return total


@pytest.mark.parametrize("path", ["/admin/login/", "/", "/chat/anybody", "/static/chat/chat.js", "/api/schema", "/no-such-page"])
def test_a_body_without_an_end_is_refused_and_not_kept(path: str, sent_to_page: Callable[[str], tuple[bytes, int]]) -> None:
    status, spooled_bytes = sent_to_page(path)
    assert spooled_bytes <= LIMIT_BYTES
    # Static files are answered before anybody looks at the body; a connection that was reset has lost its answer.
    assert status in (b"HTTP/1.1 413 Request Entity Too Large", b"HTTP/1.1 413 Payload Too Large", b"HTTP/1.1 405 Method Not Allowed", b"")


def test_an_announced_body_that_is_too_large_is_a_413(server: LiveServer) -> None:
    with server.client() as client:
        response = client.post("/admin/login/", content=b"x" * (LIMIT_BYTES + 1), headers={"X-Request-ID": "too-large-1"})
    assert (response.status_code, response.headers["content-type"]) == (413, "application/problem+json")
    assert response.headers["x-request-id"] == "too-large-1"
    assert "content-security-policy" in response.headers


def test_a_body_at_the_limit_is_read(server: LiveServer) -> None:
    with server.client() as client:
        response = client.post("/admin/login/", content=b"x" * LIMIT_BYTES)
    assert response.status_code == 403  # there is no CSRF token in it, which somebody had to look for


@pytest.mark.parametrize("path", ["/", "/admin/", "/api/agents"])
def test_web_sockets_are_refused(path: str, server: LiveServer) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = base64.b64encode(b"0123456789abcdef").decode()
    since = len(server.log().encode())
    response = httpx2.get(server.url + path, headers=headers, trust_env=False, timeout=60)
    assert response.status_code == 403
    assert "Traceback" not in server.log(since=since)


def test_the_documentation_page_allows_reading_only(server: LiveServer) -> None:
    with server.client() as client:
        assert client.options("/api/docs").status_code == 405
        assert client.get("/api/docs").status_code == 200
