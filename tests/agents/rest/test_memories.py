"""Memories over HTTP: read, add, correct, pin and forget them; a user's own, and what an agent knows for everybody."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import transaction

from memory.isolation import act_for
from memory.models import Conversation, MemoryOwner, Passage, Posting, Recalled, Sentence, Subject, Turn
from tests.factories import forget_vectors, make_agent, make_key, unique

pytestmark = pytest.mark.usefixtures("live_db")
SCOPES = ("chat", "manage_memories", "manage_knowledge")


@pytest.fixture(autouse=True)
def _no_other_space(live_db):
    forget_vectors()


@pytest.fixture
def agent():
    return make_agent()


@pytest.fixture
def key(agent):
    return make_key(agent, scopes=SCOPES)


def texts(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return [memory["text"] for memory in answer.json()["memories"]]


def test_a_memory_is_added_found_corrected_pinned_and_forgotten(agent, key, calling):
    client, path = calling(key), "/api/users/ada/memories"
    added = client.post(path, json={"agent": agent.slug, "text": "Ada lives in Porto."})
    assert added.status_code == 201
    first = added.json()["id"]
    client.post(path, json={"agent": agent.slug, "text": "Ada has two cats."})
    assert texts(client.get(path, params={"agent": agent.slug})) == ["Ada has two cats.", "Ada lives in Porto."]
    assert texts(client.get(path, params={"agent": agent.slug, "search": "PORTO"})) == ["Ada lives in Porto."]

    corrected = client.patch(f"{path}/{first}", json={"text": "Ada lives in Ulm.", "pinned": True})
    assert corrected.status_code == 200
    second = corrected.json()["id"]
    assert second != first
    assert texts(client.get(path, params={"agent": agent.slug})) == ["Ada lives in Ulm.", "Ada has two cats."]
    listed = client.get(path, params={"agent": agent.slug, "history": "true", "search": "lives"}).json()["memories"]
    new, old = listed
    assert (new["id"], new["pinned"], new["valid_until"], new["author"]) == (second, True, None, f"key {key.key.prefix}")
    assert (old["id"], old["superseded_by"]) == (first, second)
    assert old["valid_until"] is not None
    assert client.patch(f"{path}/{second}", json={"pinned": False}).json() == {"id": second}
    assert not Passage.objects.get(pk=second).pinned_at

    assert client.delete(f"{path}/{second}").json() == {"forgotten": 2}
    assert texts(client.get(path, params={"agent": agent.slug, "history": "true"})) == ["Ada has two cats."]
    assert client.delete(f"{path}/{second}").status_code == 404


def test_an_end_user_manages_their_own_memories_and_nothing_else(agent, key, calling, token_of, problem):
    user = calling(token_of(key, "ada"))
    added = user.post("/api/users/ada/memories", json={"agent": agent.slug, "text": "I like plums."})
    assert added.status_code == 201
    [memory] = user.get("/api/users/ada/memories", params={"agent": agent.slug}).json()["memories"]
    assert memory["author"] == f"the user, by key {key.key.prefix}"
    assert user.patch(f"/api/users/ada/memories/{memory['id']}", json={"text": "I like pears."}).status_code == 200
    for method, path in (
        ("GET", f"/api/users/bob/memories?agent={agent.slug}"),
        ("DELETE", "/api/users/bob/memories"),
        ("GET", "/api/users/bob/export"),
    ):
        problem(user.request(method, path), 403, "The token is another user's")
    for method, path in (
        ("GET", f"/api/agents/{agent.slug}/memories"),
        ("GET", f"/api/conversations/s?agent={agent.slug}"),
        ("DELETE", "/api/users/ada"),
    ):
        problem(user.request(method, path), 403, "The key may not do this")
    assert user.delete("/api/users/ada/memories").json() == {"forgotten": 2}


def test_an_agents_own_memories(agent, key, calling):
    client, path = calling(key), f"/api/agents/{agent.slug}/memories"
    assert texts(client.get(path)) == []
    first = client.post(path, json={"text": "The shop opens at nine."}).json()["id"]
    second = client.patch(f"{path}/{first}", json={"text": "The shop opens at ten."}).json()["id"]
    assert texts(client.get(path)) == ["The shop opens at ten."]
    assert client.delete(f"{path}/{second}").json() == {"forgotten": 2}
    assert not Passage.objects.filter(owner__agent=agent.slug).exists()


def test_what_is_known_for_everybody_tells_nobody_what_others_asked(agent, key, calling, converse):
    path = f"/api/agents/{agent.slug}/memories"
    known = calling(key).post(path, json={"text": "The shop opens at nine."}).json()["id"]
    strangers_turn = converse(make_key(agent), agent, "bob", "My PIN is 4711. When do you open?")
    with transaction.atomic():
        owner = MemoryOwner.objects.get(kind="agent", agent=agent.slug)
        act_for([owner.pk])
        Recalled.objects.create(turn_id=strangers_turn, owner=owner, passage_id=known, position=1, score=1.0, recalled_at=datetime.now(UTC))
    [memory] = calling(key).get(path).json()["memories"]
    assert memory["recalled_at"]
    assert memory["recalled_for"] == ""


def test_pages_follow_each_other_without_gaps(agent, key, calling, problem):
    client, path = calling(key), "/api/users/ada/memories"
    for number in range(5):
        client.post(path, json={"agent": agent.slug, "text": f"Ada counted to {number}."})
    found, cursor = [], ""
    for _ in range(3):
        page = client.get(path, params={"agent": agent.slug, "limit": 2, "cursor": cursor}).json()
        found += [memory["text"] for memory in page["memories"]]
        cursor = page["next"]
    assert found == [f"Ada counted to {number}." for number in (4, 3, 2, 1, 0)]
    assert cursor == ""
    for wrong in ("elsewhere", "2026-01-01T00:00:00~1", "2026-01-01T00:00:00+23:59~1", "2026-01-01T00:00:00+00:00~x"):
        document = problem(client.get(path, params={"agent": agent.slug, "cursor": wrong}), 400)
        assert list(document["errors"]) == ["cursor"]


def test_forgetting_all_is_of_one_user_and_one_agent_and_for_good(agent, calling, converse):
    other = make_agent()
    key = make_key(agent, other, scopes=SCOPES)
    client = calling(key)
    for user, which in (("ada", agent), ("ada", other), ("bob", agent)):
        client.post(f"/api/users/{user}/memories", json={"agent": which.slug, "text": f"{user} likes plums."})
    waiting = converse(key, agent, "ada", "I moved to Ulm.", remember=True)
    assert client.delete("/api/users/ada/memories", params={"agent": agent.slug}).json() == {"forgotten": 1}
    assert texts(client.get("/api/users/ada/memories", params={"agent": agent.slug, "history": "true"})) == []
    assert len(texts(client.get("/api/users/ada/memories", params={"agent": other.slug}))) == 1
    assert len(texts(client.get("/api/users/bob/memories", params={"agent": agent.slug}))) == 1
    assert Turn.objects.get(pk=waiting).remembered_at is not None
    owner = MemoryOwner.objects.get(agent=agent.slug, subject__name="ada")
    assert not Posting.objects.filter(owner=owner).exists()
    assert not Sentence.objects.filter(owner=owner).exists()
    assert Conversation.objects.filter(subject=owner.subject).count() == 1
    assert client.delete("/api/users/ada/memories").json() == {"forgotten": 1}


def test_a_key_sees_memories_of_its_own_agents_alone(agent, key, calling, problem):
    other = make_agent()
    wide = make_key(agent, other, owner=key.key.owner, scopes=SCOPES)
    secret = calling(wide).post("/api/users/ada/memories", json={"agent": other.slug, "text": "Ada is tired."}).json()["id"]
    narrow = calling(key)
    refused = problem(narrow.get("/api/users/ada/memories", params={"agent": other.slug}), 404, "Agent not found")
    absent = problem(narrow.get("/api/users/ada/memories", params={"agent": unique("none")}), 404, "Agent not found")
    assert {**refused, "request_id": ""} == {**absent, "request_id": ""}
    problem(narrow.patch(f"/api/users/ada/memories/{secret}", json={"text": "Ada is fine."}), 404, "Memory not found")
    problem(narrow.delete(f"/api/users/ada/memories/{secret}"), 404, "Memory not found")
    assert narrow.delete("/api/users/ada/memories").json() == {"forgotten": 0}
    assert Passage.objects.get(pk=secret).text == "Ada is tired."


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/users/ada/memories", None, 400),
        ("GET", "/api/users/ada/memories?agent={agent}&limit=0", None, 400),
        ("GET", "/api/users/ada/memories?agent={agent}&limit=many", None, 400),
        ("GET", "/api/users/ada/memories?agent={agent}&order=old", None, 400),
        ("GET", "/api/users/ada/memories?agent={agent}&search=%00", None, 400),
        ("GET", "/api/users/a%00b/memories?agent={agent}", None, 400),
        ("GET", "/api/users/" + "a" * 129 + "/memories?agent={agent}", None, 400),
        ("GET", "/api/users/a%2Fb/memories?agent={agent}", None, 404),
        ("GET", "/api/users/nobody/memories?agent={agent}", None, 404),
        ("GET", "/api/agents/%00/memories", None, 404),
        ("POST", "/api/users/ada/memories", {"agent": "{agent}"}, 400),
        ("POST", "/api/users/ada/memories", {"agent": "{agent}", "text": "…"}, 400),
        ("POST", "/api/users/ada/memories", {"agent": "{agent}", "text": "plum " * 1000}, 400),
        ("POST", "/api/users/ada/memories", {"agent": "{agent}", "text": "plums", "to": "x"}, 400),
        ("PATCH", "/api/users/ada/memories/1", {}, 400),
        ("PATCH", "/api/users/ada/memories/99999999999999999999", {"text": "plums"}, 404),
        ("DELETE", "/api/users/ada/memories/99999999999999999999", None, 404),
        ("DELETE", "/api/users/ada/memories/0", None, 404),
        ("DELETE", "/api/agents/{agent}/memories/99999999999999999999", None, 404),
        ("PATCH", "/api/agents/{agent}/memories/0", {"pinned": True}, 404),
    ],
)
def test_what_cannot_be_is_refused(agent, key, calling, problem, method, path, body, status):
    Subject.objects.get_or_create(owner=f"owner:{key.key.owner_id}", name="ada")
    sent = {name: value.replace("{agent}", agent.slug) if isinstance(value, str) else value for name, value in (body or {}).items()}
    answer = calling(key).request(method, path.replace("{agent}", agent.slug), **({} if body is None else {"json": sent}))
    problem(answer, status)


def test_who_manages_users_memories_has_no_say_in_what_everybody_is_told(agent, calling, problem):
    client, path = calling(make_key(agent, scopes=("chat", "manage_memories"))), f"/api/agents/{agent.slug}/memories"
    assert "'manage_knowledge'" in problem(client.post(path, json={"text": "Pay to this account."}), 403)["detail"]
    assert not MemoryOwner.objects.filter(kind="agent", agent=agent.slug).exists()


@pytest.mark.parametrize("scopes", [(), ("chat",), ("read_conversations", "erase", "usage")])
def test_the_scope_is_needed(agent, calling, api, problem, scopes):
    client = calling(make_key(agent, scopes=scopes))
    for method, path in (
        ("GET", f"/api/users/ada/memories?agent={agent.slug}"),
        ("DELETE", "/api/users/ada/memories"),
        ("DELETE", "/api/users/ada/memories/1"),
        ("GET", f"/api/agents/{agent.slug}/memories"),
    ):
        problem(client.request(method, path), 403, "The key may not do this")
        problem(api.request(method, path), 401)
