"""What a key opens: the agents it names and the scopes it has, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from agents.access import Caller, MissingScope, require_scope
from agents.access.issuing import revoke_key
from agents.models import ApiKey, Scope
from memory.models import Conversation
from observability.errors import Unauthorized
from tests.factories import make_key, make_version
from tests.waiting import eventually

INVALID = "The API key or token is not valid"


def test_a_key_opens_an_agent_that_is_for_keys_alone(make_chat_agent, upstream, calling, chat):
    agent = make_chat_agent(upstream, access="key")
    key = make_key(agent)
    answer = chat(calling(key), agent, session_id="s-1")
    assert answer.status_code == 200, answer.text
    assert answer.json()["session_id"] == "s-1"
    assert Conversation.objects.get(agent=agent.slug).owner == f"owner:{key.key.owner_id}"


def test_agents_that_the_key_does_not_name_look_absent(make_chat_agent, upstream, calling, chat, problem):
    mine, others = make_chat_agent(upstream, access="key"), make_chat_agent(upstream, access="key")
    public = make_chat_agent(upstream)
    client = calling(make_key(mine))
    absent = problem(chat(client, "nobody"), 404, "Agent not found")
    for agent in (others, public):
        assert problem(chat(client, agent), 404) == absent
        assert problem(client.get(f"/api/agents/{agent.slug}"), 404) == absent
    assert [agent["slug"] for agent in client.get("/api/agents").json()["agents"]] == [mine.slug]
    assert client.get(f"/api/agents/{mine.slug}").json()["slug"] == mine.slug
    assert upstream.calls == []


def test_no_agents_means_none_and_every_agent_includes_those_made_later(make_chat_agent, upstream, calling, chat, problem):
    none, every = calling(make_key()), calling(make_key(all_agents=True))
    assert chat(every, make_chat_agent(upstream, access="key")).status_code == 200
    later = make_chat_agent(upstream)
    assert chat(every, later).status_code == 200
    problem(chat(none, later), 404, "Agent not found")
    assert none.get("/api/agents").json() == {"agents": []}


@pytest.mark.parametrize("scope", [None, *(scope.value for scope in Scope if scope != Scope.CHAT)])
def test_without_the_scope_chat_nobody_chats(make_chat_agent, upstream, calling, chat, problem, scope):
    agent = make_chat_agent(upstream)
    client = calling(make_key(agent, scopes=(scope,) if scope else ()))
    assert "'chat'" in problem(chat(client, agent), 403, "The key may not do this")["detail"]
    assert "'chat'" in problem(client.post("/api/tokens", json={"user": "ada"}), 403)["detail"]
    assert upstream.calls == []


@pytest.mark.parametrize("wanted", Scope.values)
@pytest.mark.parametrize("held", [None, *Scope.values])
def test_a_scope_opens_itself_alone(held, wanted):
    caller = Caller(owner="owner:1", key_id="abcdefgh", scopes=frozenset([held] if held else []))
    if held == wanted:
        require_scope(caller, wanted)
    else:
        with pytest.raises(MissingScope, match=f"'{wanted}'"):
            require_scope(caller, wanted)


def test_without_a_key_every_scope_is_a_401():
    for scope in Scope:
        with pytest.raises(Unauthorized, match=f"'{scope.value}'"):
            require_scope(Caller(owner="anonymous:x", scopes=frozenset(Scope.values)), scope)


def test_an_earlier_version_needs_a_scope_and_must_have_been_published(make_chat_agent, upstream, calling, chat, problem):
    agent = make_chat_agent(upstream, system_prompt="First.")
    make_version(agent, system_prompt="Second.")
    make_version(agent, published=False, system_prompt="Third.")
    may, may_not = calling(make_key(agent, scopes=("chat", "pinned_versions"))), calling(make_key(agent))
    for number, prompt in ((1, "First."), (2, "Second."), (1, "First.")):
        assert chat(may, agent, version=number).json()["version"] == number
        assert upstream.calls[-1].messages[0]["content"] == prompt
    assert chat(may, agent).json()["version"] == 2
    for number in (3, 4, 2**31, 2**63, 10**30):
        problem(chat(may, agent, version=number), 404, "Version not found")
    assert "'pinned_versions'" in problem(chat(may_not, agent, version=1), 403)["detail"]
    # Of an agent that the key may not use, no version exists.
    problem(chat(calling(make_key(scopes=("chat", "pinned_versions"))), agent, version=1), 404, "Agent not found")


def test_a_version_that_was_switched_off_with_its_agent_answers_nobody(make_chat_agent, upstream, calling, chat, problem):
    agent = make_chat_agent(upstream)
    make_version(agent, system_prompt="Second.")
    agent.is_active = False
    agent.save()
    problem(chat(calling(make_key(agent, scopes=("chat", "pinned_versions"))), agent, version=1), 404, "Agent not found")


@pytest.mark.parametrize("state", ["revoked", "expired", "deleted"])
def test_a_key_that_ended_is_as_unknown_as_any(make_chat_agent, upstream, calling, chat, problem, state):
    agent = make_chat_agent(upstream)
    unknown = problem(chat(calling("abcdefgh." + "x" * 32), agent), 401, INVALID)
    key = make_key(agent, expires_at=timezone.now() - timedelta(seconds=1) if state == "expired" else None)
    if state == "revoked":
        revoke_key(key.key)
    if state == "deleted":
        key.key.delete()
    assert problem(chat(calling(key), agent), 401) == unknown
    assert upstream.calls == []


def test_a_key_that_expires_while_it_is_in_use_ends_at_once(make_chat_agent, upstream, calling, chat):
    agent = make_chat_agent(upstream)
    ends_at = timezone.now() + timedelta(seconds=15)
    client = calling(make_key(agent, expires_at=ends_at))
    assert chat(client, agent).status_code == 200
    eventually(lambda: chat(client, agent).status_code == 401, what="the key has expired", timeout_s=60)
    assert timezone.now() >= ends_at


def test_when_a_key_was_used_is_written_soon_and_seldom(make_chat_agent, upstream, calling, chat):
    agent = make_chat_agent(upstream)
    key = make_key(agent)
    client = calling(key)
    chat(client, agent)

    def used_at():
        return ApiKey.objects.get(pk=key.key.pk).last_used_at

    eventually(used_at, what="its use is written")
    first = used_at()
    assert abs(first - timezone.now()) < timedelta(seconds=60)
    for _ in range(5):
        chat(client, agent)
    assert used_at() == first


def test_only_a_hash_is_stored(live_db):
    issued = make_key()
    secret = issued.secret.partition(".")[2]
    assert len(secret) == 32
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_jsonb(k)::text FROM agents_apikey k WHERE id = %s", [issued.key.pk])
        row = cursor.fetchone()[0]
    assert secret not in row
    assert issued.secret not in row


def test_unknown_scopes_are_refused_by_the_database(live_db):
    from django.db import IntegrityError

    with pytest.raises(IntegrityError, match="key_scopes_are_known"):
        make_key(scopes=("chat", "everything"))
