"""Whatever stands in `Authorization`, on every route that reads it: the same 401, never a server error, and no other effect."""

from __future__ import annotations

import json
import random
import socket

import pytest

from tests.factories import make_key

ROUTES = [("POST", "/api/chat/{agent}"), ("GET", "/api/agents"), ("GET", "/api/agents/{agent}"), ("POST", "/api/tokens")]
UNKNOWN = "abcdefgh." + "x" * 32


def send(port: int, method: str, path: str, *, authorization: bytes, times: int = 1) -> tuple[int, dict[str, str], bytes]:
    """Send one raw request, as clients with no manners do; return status, headers and body."""
    body = json.dumps({"message": "Hi", "user": "ada"}).encode() if method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode() + (b"Authorization: " + authorization + b"\r\n") * times + b"\r\n" + body)
        answer = b""
        try:
            while data := connection.recv(65_536):
                answer += data
        except ConnectionResetError:
            pass  # after its answer: it read no further
    head_text, _, content = answer.partition(b"\r\n\r\n")
    status, *lines = head_text.decode("latin-1").split("\r\n")
    return int(status.split()[1]), {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, content


def document_of(content: bytes) -> dict[str, object]:
    start, end = content.index(b"{"), content.rindex(b"}") + 1  # chunked or not
    document: dict[str, object] = json.loads(content[start:end])
    document.pop("request_id")
    return document


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"Api-Key " + UNKNOWN.encode(), UNKNOWN.encode(), b"Bearer\t" + UNKNOWN.encode()),
        *(b"'\"", b"Bearer '", b'Bearer "', b"Bearer ' OR 1=1 --", b"Bearer \\", b"Bearer %00", b"Bearer {{7*7}}", b"Bearer ${jndi:x}"),
        *(b"Bearer \xff\xfe", "Bearer ключ".encode(), "Bearer 🔑".encode(), b"Bearer abcdefgh." + b"\xe9" * 32),
        *(b"Bearer .", b"Bearer ..", b"Bearer abcdefgh.", b"Bearer ." + b"x" * 32, b"Bearer abcdefgh." + b"x" * 33),
        *(
            b"Bearer ut_",
            b"Bearer ut_.",
            b"Bearer ut_e30.e30",
            b"Bearer ut_" + b"." * 500,
            b"Bearer ut_" + b"A" * 6000,
            b"Bearer ut_\xff.x",
        ),
        *(b"Bearer " + b"x" * 6000, b"Bearer " + UNKNOWN.encode() + b", Bearer " + UNKNOWN.encode()),
    ],
)
def test_what_is_no_key_is_the_same_401_on_every_route(server, make_chat_agent, upstream, value):
    agent = make_chat_agent(upstream)
    plain = document_of(send(server.port, "GET", "/api/agents", authorization=b"Bearer " + UNKNOWN.encode())[2])
    for method, path in ROUTES:
        status, headers, content = send(server.port, method, path.format(agent=agent.slug), authorization=value)
        assert status == 401, (path, content)
        assert headers["www-authenticate"] == "Bearer"
        assert headers["content-type"] == "application/problem+json"
        assert document_of(content) == plain
    assert upstream.calls == []


def test_two_headers_are_no_key(server, make_chat_agent, upstream):
    agent = make_chat_agent(upstream)
    secret = make_key(agent).secret.encode()
    assert send(server.port, "GET", "/api/agents", authorization=b"Bearer " + secret)[0] == 200
    assert send(server.port, "GET", "/api/agents", authorization=b"Bearer " + secret, times=2)[0] == 401


@pytest.mark.parametrize("value", [b"Bearer a\x00b", b"Bearer \x01", b"Bearer " + b"x" * 65_536, b"Bearer ut_" + b"x" * 65_536])
def test_what_no_http_header_may_hold_is_refused_before_it_is_read(server, value):
    """The server itself refuses control characters and headers beyond its limit; either way nobody gets in and nothing breaks."""
    status, _, _ = send(server.port, "GET", "/api/agents", authorization=value)
    assert status in (400, 401, 431)
    assert send(server.port, "GET", "/api/agents", authorization=b"Bearer " + UNKNOWN.encode())[0] == 401


def test_random_changes_of_a_key_open_nothing(server, live_db):
    seed = random.randrange(1_000_000)
    print(f"SEED={seed}")
    chance = random.Random(seed)
    secret = bytearray(make_key(all_agents=True).secret.encode())
    for _ in range(100):
        changed = bytearray(secret)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = chance.choice(b"abcXYZ019.-_'\"\\;\xe9")
        if changed != secret:
            assert send(server.port, "GET", "/api/agents", authorization=b"Bearer " + bytes(changed))[0] == 401
    assert send(server.port, "GET", "/api/agents", authorization=b"bearer " + bytes(secret))[0] == 200  # the scheme has no case
