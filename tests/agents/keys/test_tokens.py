"""Tokens for end users: one user, for a while, never more than their key, and gone with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from agents.access import InvalidKey
from agents.access.callers import Caller
from agents.access.issuing import revoke_key
from agents.access.tokens import PREFIX, Claims, narrow, read_token, sign_token
from memory.models import Subject, Turn
from tests.factories import make_key
from tests.waiting import eventually

CLAIMS = Claims(
    key_id="abcdefgh",
    user="ada",
    scopes=frozenset({"chat"}),
    agents=None,
    expires_at=datetime.now(UTC).replace(microsecond=0) + timedelta(1),
)
KEY = Caller(owner="owner:1", key_id="abcdefgh", scopes=frozenset({"chat", "erase", "pinned_versions"}), agents=frozenset({"a", "b"}))


@pytest.fixture
def issue(calling):
    """`issue(key, user="ada")` returns a token."""

    def issue(key, **body):
        response = calling(key).post("/api/tokens", json={"user": "ada", **body})
        assert response.status_code == 201, response.text
        assert response.headers["cache-control"] == "no-store"
        return response.json()["token"]

    return issue


def test_a_token_speaks_for_its_user(make_chat_agent, upstream, calling, chat, issue):
    agent = make_chat_agent(upstream, access="key")
    key = make_key(agent)
    client = calling(issue(key))
    assert chat(client, agent).status_code == 200
    assert chat(client, agent, user="ada").status_code == 200
    subjects = {turn.conversation.subject for turn in Turn.objects.filter(agent=agent.slug)}
    assert {(subject.owner, subject.name) for subject in subjects} == {(f"owner:{key.key.owner_id}", "ada")}


@pytest.mark.parametrize("other", ["bob", "Ada", "ada ", "a"])
def test_a_token_names_nobody_else(make_chat_agent, upstream, calling, chat, problem, issue, other):
    agent = make_chat_agent(upstream)
    problem(chat(calling(issue(make_key(agent))), agent, user=other), 403, "The token is another user's")
    assert upstream.calls == []
    assert not Subject.objects.filter(name=other, conversations__agent=agent.slug).exists()


def test_a_token_issues_no_tokens(make_chat_agent, upstream, calling, problem, issue):
    token = issue(make_key(make_chat_agent(upstream)))
    problem(calling(token).post("/api/tokens", json={"user": "ada"}), 403, "The key may not do this")


def test_a_token_ends_with_its_key(make_chat_agent, upstream, calling, chat, problem, issue):
    agent = make_chat_agent(upstream)
    key = make_key(agent)
    client = calling(issue(key))
    assert chat(client, agent).status_code == 200
    revoke_key(key.key)
    eventually(lambda: chat(client, agent).status_code == 401, what="the token is refused", timeout_s=15)
    problem(chat(client, agent), 401, "The API key or token is not valid")


def test_a_token_ends_with_its_time(make_chat_agent, upstream, calling, chat, issue):
    agent = make_chat_agent(upstream)
    client = calling(issue(make_key(agent), expires_in_s=15))
    assert chat(client, agent).status_code == 200
    eventually(lambda: chat(client, agent).status_code == 401, what="the token has expired", timeout_s=60)


def test_a_token_says_until_when_and_no_longer_than_its_key(live_db, calling):
    key_ends_at = timezone.now() + timedelta(minutes=10)
    key = make_key(all_agents=True, expires_at=key_ends_at)
    for asked_s, expected in ((60, timezone.now() + timedelta(seconds=60)), (3600, key_ends_at)):
        answer = calling(key).post("/api/tokens", json={"user": "ada", "expires_in_s": asked_s}).json()
        assert abs(datetime.fromisoformat(answer["expires_at"]) - expected) < timedelta(seconds=20)
        assert datetime.fromisoformat(answer["expires_at"]) <= key_ends_at
        assert read_token(answer["token"]).expires_at == datetime.fromisoformat(answer["expires_at"])


def test_a_token_opens_the_agents_it_names(make_chat_agent, upstream, calling, chat, problem, issue):
    first, second, public = make_chat_agent(upstream, access="key"), make_chat_agent(upstream, access="key"), make_chat_agent(upstream)
    key = make_key(first, second)
    client = calling(issue(key, agents=[first.slug]))
    assert chat(client, first).status_code == 200
    for agent in (second, public):
        problem(chat(client, agent), 404, "Agent not found")
    assert [agent["slug"] for agent in client.get("/api/agents").json()["agents"]] == [first.slug]
    for absent in (public.slug, "nobody"):
        problem(calling(key).post("/api/tokens", json={"user": "ada", "agents": [first.slug, absent]}), 404, "Agent not found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user"),
        ({"user": ""}, "user"),
        ({"user": "a/b"}, "user"),
        ({"user": ".."}, "user"),
        ({"user": "a\x00"}, "user"),
        ({"user": "x" * 129}, "user"),
        ({"user": 7}, "user"),
        ({"user": "ada", "expires_in_s": 0}, "expires_in_s"),
        ({"user": "ada", "expires_in_s": 86_401}, "expires_in_s"),
        ({"user": "ada", "expires_in_s": "60"}, "expires_in_s"),
        ({"user": "ada", "scopes": []}, "scopes"),
        ({"user": "ada", "scopes": ["erase"]}, "scopes"),
        ({"user": "ada", "agents": []}, "agents"),
        ({"user": "ada", "agents": ["x"] * 21}, "agents"),
        ({"user": "ada", "owner": "owner:1"}, "owner"),
    ],
)
def test_unusable_wishes_are_named(live_db, calling, problem, body, field):
    document = problem(calling(make_key(all_agents=True, scopes=("chat", "erase"))).post("/api/tokens", json=body), 400)
    assert any(name.startswith(field) for name in document["errors"])


def test_a_token_has_no_scope_that_its_key_lacks(live_db, calling, problem):
    asked = {"user": "ada", "scopes": ["chat", "manage_memories"]}
    assert "'manage_memories'" in problem(calling(make_key(all_agents=True)).post("/api/tokens", json=asked), 403)["detail"]
    token = calling(make_key(all_agents=True, scopes=("chat", "manage_memories", "erase"))).post("/api/tokens", json=asked).json()["token"]
    assert read_token(token).scopes == {"chat", "manage_memories"}


def test_nobody_without_a_key_gets_a_token(api, problem):
    problem(api.post("/api/tokens", json={"user": "ada"}), 401)


def test_a_token_never_has_more_than_its_key_has_by_now():
    wide = replace(CLAIMS, scopes=frozenset({"chat", "manage_memories", "erase", "pinned_versions"}), agents=frozenset({"a", "c"}))
    narrowed = narrow(KEY, wide)
    assert (narrowed.scopes, narrowed.agents, narrowed.user, narrowed.owner) == ({"chat"}, {"a"}, "ada", "owner:1")
    assert narrow(replace(KEY, all_agents=True), wide).agents == {"a", "c"}
    assert not narrow(replace(KEY, all_agents=True), wide).may_use("b")
    assert narrow(replace(KEY, all_agents=True), CLAIMS).may_use("whichever")
    assert not narrow(KEY, CLAIMS).may_use("c")


def test_a_token_is_read_as_it_was_signed_also_after_the_secret_key_was_replaced(settings: Settings):
    token = sign_token(replace(CLAIMS, user="Ådä 🙂", agents=frozenset({"a", "b"})))
    assert read_token(token) == replace(CLAIMS, user="Ådä 🙂", agents=frozenset({"a", "b"}))
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=")  # RFC 6750
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another" * 10
    assert read_token(token).user == "Ådä 🙂"
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(InvalidKey):
        read_token(token)


def test_the_longest_token_fits_into_a_header():
    longest = replace(
        CLAIMS, user="🙂" * 128, scopes=frozenset({"chat", "manage_memories"}), agents=frozenset(f"{n:063}" for n in range(20))
    )
    assert len(sign_token(longest)) < 8000
    assert read_token(sign_token(longest)) == longest


@given(st.integers(min_value=len(PREFIX)), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_changed_token_is_no_token(place: int, character: str):
    token = sign_token(CLAIMS)
    place = max(len(PREFIX), place % len(token))
    changed = token[:place] + character + token[place + 1 :]
    if changed != token:
        with pytest.raises(InvalidKey):
            read_token(changed)


@given(st.text())
def test_no_text_breaks_the_reading(text: str):
    with pytest.raises(InvalidKey):
        read_token(PREFIX + text)
