"""The framework's own errors are problem documents too, on every route, and every response has its request id."""

import socket

import pytest

from memory.models import Turn
from tests.waiting import eventually


def test_unknown_routes(api, problem):
    for path in ("/api/nothing", "/api/chat", "/api/chat/a/b", "/nothing", "/health/nothing"):
        problem(api.get(path), 404)


def test_wrong_methods_name_the_right_ones(make_chat_agent, upstream, api, problem):
    agent = make_chat_agent(upstream)
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        response = api.request(method, f"/api/chat/{agent.slug}")
        problem(response, 405, "Method not allowed")
        assert "POST" in response.headers["allow"]
    problem(api.post("/api/agents", json={}), 405)
    for path in ("/health", "/health/ready"):
        for method in ("PUT", "POST", "DELETE", "OPTIONS"):
            response = api.request(method, path)
            problem(response, 405, "Method not allowed")
            assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("accept", ["text/html", "image/png", "application/xml"])
def test_an_answer_that_cannot_be_given_is_a_406(make_chat_agent, upstream, api, problem, accept):
    agent = make_chat_agent(upstream)
    problem(api.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}, headers={"Accept": accept}), 406)
    assert upstream.calls == []


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html, */*;q=0.8", "application/json, text/event-stream;q=0.5"])
def test_usual_accept_headers_get_json(make_chat_agent, upstream, api, accept):
    agent = make_chat_agent(upstream)
    response = api.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}, headers={"Accept": accept})
    assert response.headers["content-type"] == "application/json", response.text


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml"]
)
def test_another_media_type_is_a_415(make_chat_agent, upstream, api, problem, content_type):
    agent = make_chat_agent(upstream)
    response = api.post(f"/api/chat/{agent.slug}", content=b'{"message": "Hi"}', headers={"Content-Type": content_type})
    problem(response, 415, "Unsupported media type")


def test_json_with_a_charset_is_taken(make_chat_agent, upstream, api):
    agent = make_chat_agent(upstream)
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert api.post(f"/api/chat/{agent.slug}", content=b'{"message": "Hi"}', headers=headers).status_code == 200


def test_another_host_name_is_refused(api, problem):
    problem(api.get("/api/agents", headers={"Host": "evil.example"}), 400)
    assert api.get("/health", headers={"Host": "10.0.0.7"}).status_code == 200


def test_a_sane_request_id_comes_back_and_any_other_is_replaced(api):
    assert api.get("/health", headers={"X-Request-ID": "client-id_0.1:2"}).headers["x-request-id"] == "client-id_0.1:2"
    for bad in ("short", "x" * 65, "has space in it", "semi;colon;here", "<script>alert"):
        given = api.get("/health", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert given != bad
        assert len(given) == 36


def test_every_kind_of_response_has_a_request_id_and_safe_headers(make_chat_agent, upstream, api, ask):
    agent = make_chat_agent(upstream)
    responses = [ask(agent), ask(agent, stream=True), ask("nobody"), api.get("/api/agents"), api.get("/api/nothing"), api.get("/health")]
    for response in responses:
        assert len(response.headers.get_list("x-request-id")) == 1
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"]
        assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"POST /api/chat/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/chat/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /api/chat/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /api/agents HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["garbage", "negative length", "two lengths", "bad chunk", "big header", "long path"],
)
def test_broken_http_ends_the_connection_and_the_server_lives(server, api, request_bytes):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request_bytes)
        try:
            answer = connection.recv(65_536)
        except ConnectionError:
            answer = b""
    assert answer == b"" or answer.split(b" ")[1][:1] == b"4", answer[:200]
    assert api.get("/health").status_code == 200


def test_health_says_ok_with_a_utc_time(api, live_db):
    from datetime import UTC, datetime, timedelta

    # No turn of another test waits for an embedder that this server has not.
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
    body = api.get("/health").json()
    assert body["status"] == "ok"
    assert datetime.fromisoformat(body["timestamp"]).utcoffset() == timedelta(0)
    assert api.head("/health").status_code == 200

    def says_all_is_ok():
        ready = api.get("/health/ready")
        return ready.status_code == 200 and set(ready.json()["checks"].values()) == {"ok"}

    eventually(says_all_is_ok, what="every check is ok")  # a busy machine is late now and then


def test_a_fault_of_ours_is_a_500_that_tells_callers_only_the_request_id(start_server, problem):
    server = start_server(DJANGO_SETTINGS_MODULE="tests.agents.rest.faulty_settings")
    with server.client() as client:
        for path in ("/api/faulty", "/faulty"):
            response = client.get(path)
            document = problem(response, 500, "Internal server error")
            assert "canary" not in response.text
            assert document["request_id"] in server.log()
        page = client.get("/faulty", headers={"Accept": "text/html"})
        assert page.status_code == 500
        assert page.headers["content-type"].startswith("text/html")
        assert "canary" not in page.text
    assert "canary-in-the-exception" in server.log()
