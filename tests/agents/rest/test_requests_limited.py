"""Limits of everything but chat: the API's other routes, and signing in to the admin."""

from __future__ import annotations

import time
import uuid

import pytest
from django_ratelimit.core import _get_window

from observability.models import Limit, LimitScope
from observability.rules import WINDOW_S, client_of
from tests.factories import make_key, make_user


@pytest.fixture
def from_anywhere(start_server):
    """A server behind a proxy, so that each test has addresses of its own."""
    return start_server(API_REQUESTS_PER_MINUTE="3", SIGN_INS_PER_MINUTE="2", TRUSTED_PROXIES="127.0.0.0/8")


def has_time(name):
    """Tell whether what django-ratelimit counts of `name` now counts for a while: its windows end at seconds fixed for each name."""
    return _get_window(name, WINDOW_S) - time.time() > 25


def an_address():
    while not has_time(client_of(address := f"2001:db8:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}::1")):
        pass
    return {"X-Forwarded-For": address}


def a_key(agent):
    key = make_key(agent)
    while not has_time(f"key {key.key.prefix}"):
        key = make_key(agent)
    return {"Authorization": f"Bearer {key.secret}"}


def test_the_other_routes_count_by_address_and_by_key(make_chat_agent, upstream, from_anywhere):
    agent = make_chat_agent(upstream)
    with from_anywhere.client() as client:
        address = an_address()
        answers = [client.get("/api/agents", headers=address) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["ratelimit"].split(";")[:2] for answer in answers] == [
            ['"api-requests"', f"r={left}"] for left in (2, 1, 0, 0)
        ]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"api-requests";q=3;w=60'}
        assert answers[-1].json()["type"] == "/errors/rate-limited"
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        # A key counts by itself wherever it is used; a wrong one as the address that tries it.
        key = a_key(agent)
        assert [client.get("/api/agents", headers=address | key).status_code for _ in range(4)] == [200, 200, 200, 429]
        other = an_address()
        assert client.get("/api/agents", headers=other).status_code == 200
        wrong = [client.post("/api/tokens", json={}, headers=other | {"Authorization": f"Bearer no-{number}"}) for number in range(3)]
        assert [answer.status_code for answer in wrong] == [401, 401, 429]
        # Chat has limits of its own.
        assert client.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}, headers=address).status_code == 200


CHAT_MISTAKES = [
    ("POST", "support", {"content": b"no json", "headers": {"Content-Type": "application/json"}}, 400),
    ("POST", "support", {"json": {"message": ""}}, 400),
    ("POST", "support", {"json": {"message": "Hi"}, "headers": {"Idempotency-Key": "1"}}, 400),
    ("POST", "support", {"json": {"message": "Hi", "user": "ada"}}, 401),
    ("POST", "support", {"json": {"message": "Hi"}, "headers": {"Authorization": "Bearer no"}}, 401),
    ("POST", "no-such-agent", {"json": {"message": "Hi"}}, 404),
    ("GET", "support", {}, 405),
    ("POST", "support", {"json": {"message": "Hi"}, "headers": {"Accept": "image/png"}}, 406),
    ("POST", "support", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
]


def test_chat_requests_that_become_no_turn_count_too(make_chat_agent, upstream, start_server):
    agent = make_chat_agent(upstream)
    server = start_server(ANONYMOUS_REQUESTS_PER_MINUTE="3", TRUSTED_PROXIES="127.0.0.0/8")

    def ask(client, mistake, address):
        method, slug, fields, _ = mistake
        slug = slug.replace("support", agent.slug)
        return client.request(method, f"/api/chat/{slug}", **{**fields, "headers": fields.get("headers", {}) | address})

    with server.client() as client:
        for mistake in CHAT_MISTAKES:
            address = an_address()
            answers = [ask(client, mistake, address) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [*[mistake[-1]] * 3, 429], mistake
            assert [answer.headers["ratelimit"].split(";")[:2] for answer in answers] == [
                ['"address-requests"', f"r={left}"] for left in (2, 1, 0, 0)
            ], mistake
            assert answers[-1].json()["type"] == "/errors/rate-limited"
            assert 0 < int(answers[-1].headers["retry-after"]) <= 60
            # They count with the messages that are answered.
            assert client.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}, headers=address).status_code == 429
    assert not upstream.calls


def test_mistakes_with_a_key_count_for_the_key(make_chat_agent, upstream, start_server):
    agent = make_chat_agent(upstream)
    key = make_key(agent)
    limit = Limit.objects.create(scope=LimitScope.KEY, name=key.key.prefix, requests_per_minute=3)
    server = start_server(ANONYMOUS_REQUESTS_PER_MINUTE="1")
    try:
        with server.client(headers={"Authorization": f"Bearer {key.secret}"}) as client:
            answers = [client.post("/api/chat/no-such-agent", json={"message": "Hi"}) for _ in range(4)]
    finally:
        limit.delete()
    assert [answer.status_code for answer in answers] == [404, 404, 404, 429]
    assert '"key-requests"' in answers[0].headers["ratelimit"]


def test_signing_in_counts_tries(live_db, from_anywhere):
    user = make_user(role="superuser", password="right")
    address = an_address()
    with from_anywhere.client(headers=address | {"Accept": "text/html"}) as client:
        client.get("/admin/login/")

        def sign_in(password):
            token = client.cookies["csrftoken"]
            return client.post("/admin/login/", data={"username": user.username, "password": password, "csrfmiddlewaretoken": token})

        assert [sign_in("wrong").status_code for _ in range(2)] == [200, 200]
        refused = sign_in("right")
        assert refused.status_code == 429
        assert "Try again in" in refused.text
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/admin/login/").status_code == 200
        client.headers.update(an_address())
        assert sign_in("right").status_code == 302


def test_without_redis_nothing_is_counted(make_chat_agent, upstream, start_server):
    make_chat_agent(upstream)
    server = start_server(API_REQUESTS_PER_MINUTE="1", SIGN_INS_PER_MINUTE="1", REDIS_URL="redis://127.0.0.1:1/0")
    with server.client() as client:
        answers = [client.get("/api/agents") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert "ratelimit" not in answers[0].headers
