"""Users over HTTP: exported whole, and erased with a receipt."""

from __future__ import annotations

import json

import pytest
from uuid_utils.compat import uuid7

from memory.models import Conversation, Subject, Summary, Turn
from tests.factories import forget_vectors, make_agent, make_key, make_key_owner

pytestmark = pytest.mark.usefixtures("live_db")
ALL = ("chat", "manage_memories", "erase", "read_conversations")


@pytest.fixture(autouse=True)
def _no_other_space(live_db):
    forget_vectors()


@pytest.fixture
def agent():
    return make_agent()


@pytest.fixture
def key(agent):
    return make_key(agent, scopes=ALL)


def exported(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == 'attachment; filename="export.json"'
    assert answer.headers["cache-control"] == "no-store"
    return json.loads(answer.content)


def test_an_export_holds_everything_and_nobody_else(agent, key, calling, converse):
    client = calling(key)
    for number in range(3):
        converse(key, agent, "ada", f"Message {number} of Ada's", session="first")
    last = converse(key, agent, "ada", 'A "quoted" ☃ message', session="second")
    converse(key, agent, "bob", "Bob's own message")
    conversation = Conversation.objects.get(subject__owner=f"owner:{key.key.owner_id}", session_id="first")
    Summary.objects.create(conversation=conversation, number=1, upto_seq=1, text="Ada began.")
    first = client.post("/api/users/ada/memories", json={"agent": agent.slug, "text": "Ada lives in Porto."}).json()["id"]
    second = client.patch(f"/api/users/ada/memories/{first}", json={"text": "Ada lives in Ulm."}).json()["id"]
    client.post("/api/users/bob/memories", json={"agent": agent.slug, "text": "Bob's own memory."})

    document = exported(client.get("/api/users/ada/export"))
    assert document["user"] == "ada"
    assert [each["agent"] for each in document["agents"]] == [agent.slug]
    assert [(each["session_id"], [s["text"] for s in each["summaries"]]) for each in document["conversations"]] == [
        ("first", ["Ada began."]),
        ("second", []),
    ]
    assert [each["message"] for each in document["messages"]] == [*(f"Message {n} of Ada's" for n in range(3)), 'A "quoted" ☃ message']
    assert document["messages"][-1]["message_id"] == str(last)
    assert {each["conversation_id"] for each in document["messages"]} == {each["id"] for each in document["conversations"]}
    assert {each["id"]: (each["text"], each["superseded_by"]) for each in document["memories"]} == {
        first: ("Ada lives in Porto.", second),
        second: ("Ada lives in Ulm.", None),
    }
    assert "Bob" not in json.dumps(document)


def test_an_export_of_many_messages_is_whole(agent, key, calling, converse):
    converse(key, agent, "ada", "Message 1")
    conversation = Conversation.objects.get(subject__owner=f"owner:{key.key.owner_id}", subject__name="ada")
    [turn] = Turn.objects.filter(conversation=conversation)
    fields = {field.attname: getattr(turn, field.attname) for field in Turn._meta.concrete_fields}
    Turn.objects.bulk_create(Turn(**{**fields, "id": uuid7(), "seq": n, "message": f"Message {n}"}) for n in range(2, 452))
    document = exported(calling(key).get("/api/users/ada/export"))
    assert [each["message"] for each in document["messages"]] == [f"Message {n}" for n in range(1, 452)]


def test_an_export_is_for_who_may_see_it(agent, key, calling, converse, token_of, problem, api):
    other = make_agent()
    converse(key, agent, "ada", "To the first", session="one")
    converse(key, other, "ada", "To the second", session="two")
    owner = key.key.owner
    narrow = calling(make_key(agent, owner=owner, scopes=("chat", "manage_memories")))
    assert [each["message"] for each in exported(narrow.get("/api/users/ada/export"))["messages"]] == ["To the first"]
    for whole in (calling(key), calling(make_key(owner=owner, scopes=("erase",)))):
        assert len(exported(whole.get("/api/users/ada/export"))["messages"]) == 2
    own = calling(token_of(key, "ada"))
    assert [each["message"] for each in exported(own.get("/api/users/ada/export"))["messages"]] == ["To the first"]
    problem(calling(make_key(agent, owner=owner)).get("/api/users/ada/export"), 403, "The key may not do this")
    problem(api.get("/api/users/ada/export"), 401)
    problem(calling(key).get("/api/users/nobody/export"), 404, "User not found")


def test_an_erased_user_is_gone_and_the_receipt_stays(agent, key, calling, converse, problem):
    client = calling(key)
    converse(key, agent, "ada", "I like plums.")
    converse(key, agent, "bob", "I like pears.")
    client.post("/api/users/ada/memories", json={"agent": agent.slug, "text": "Ada lives in Porto."})
    answer = client.delete("/api/users/ada")
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert set(receipt) == {"id", "erased_at", "took_ms", "counts", "actor"}
    assert receipt["actor"] == f"key {key.key.prefix}"
    assert (receipt["counts"]["turns"], receipt["counts"]["memories"]) == (1, 1)
    assert client.get(f"/api/erasures/{receipt['id']}").json() == receipt
    problem(client.get("/api/users/ada/export"), 404, "User not found")
    problem(client.get(f"/api/users/ada/memories?agent={agent.slug}"), 404, "User not found")
    problem(client.get(f"/api/conversations/s?agent={agent.slug}&user=ada"), 404, "Conversation not found")
    assert len(exported(client.get("/api/users/bob/export"))["messages"]) == 1

    again = client.delete("/api/users/ada").json()
    assert again["id"] != receipt["id"]
    assert set(again["counts"].values()) <= {0}
    assert not Subject.objects.filter(owner=f"owner:{key.key.owner_id}", name="ada").exists()


def test_receipts_are_for_keys_of_the_same_owner_that_may_erase(agent, key, calling, problem):
    receipt = calling(key).delete("/api/users/ada").json()
    path = f"/api/erasures/{receipt['id']}"
    assert calling(make_key(agent, owner=key.key.owner, scopes=("erase",))).get(path).json() == receipt
    problem(calling(make_key(agent, owner=key.key.owner)).get(path), 403, "The key may not do this")
    foreign = problem(calling(make_key(agent, owner=make_key_owner(), scopes=ALL)).get(path), 404, "Erasure not found")
    absent = problem(calling(key).get(f"/api/erasures/{uuid7()}"), 404, "Erasure not found")
    assert {**foreign, "request_id": ""} == {**absent, "request_id": ""}


def test_erasing_needs_the_scope(agent, calling, token_of, key, problem, api):
    client = calling(make_key(agent, scopes=("chat", "manage_memories", "read_conversations")))
    for who in (client, calling(token_of(key, "ada"))):
        problem(who.delete("/api/users/ada"), 403, "The key may not do this")
    problem(api.delete("/api/users/ada"), 401)
    problem(calling(key).delete("/api/users/" + "a" * 129), 400)
