"""Conversations over HTTP, for keys that may read them."""

from __future__ import annotations

import pytest

from tests.factories import make_agent, make_key

pytestmark = pytest.mark.usefixtures("live_db")


@pytest.fixture
def agent():
    return make_agent()


@pytest.fixture
def key(agent):
    return make_key(agent, scopes=("chat", "read_conversations"))


def test_a_conversation_is_read_page_by_page(agent, key, calling, converse):
    client = calling(key)
    ids = [str(converse(key, agent, "ada", f"Message {n}", f"Reply {n}", session="a b/ü")) for n in range(5)]
    path, asked = "/api/conversations/a%20b%2F%C3%BC", {"agent": agent.slug}
    card = client.get(path, params=asked).json()
    assert (card["session_id"], card["agent"], card["user"], card["messages"]) == ("a b/ü", agent.slug, "ada", 5)
    found, cursor = [], 0
    for _ in range(3):
        page = client.get(f"{path}/messages", params={**asked, "limit": 2, "cursor": cursor})
        assert page.status_code == 200, page.text
        found += page.json()["messages"]
        cursor = page.json()["next"]
    assert cursor == ""
    assert [each["message_id"] for each in found] == ids
    assert [(each["number"], each["message"], each["reply"], each["state"]) for each in found[:2]] == [
        (1, "Message 0", "Reply 0", "done"),
        (2, "Message 1", "Reply 1", "done"),
    ]


def test_a_session_that_several_users_call_the_same_needs_the_user(agent, key, calling, converse, problem):
    client = calling(key)
    for user in ("ada", "bob"):
        converse(key, agent, user, f"I am {user}.", session="s")
    document = problem(client.get("/api/conversations/s", params={"agent": agent.slug}), 400)
    assert list(document["errors"]) == ["user"]
    for user in ("ada", "bob"):
        page = client.get("/api/conversations/s/messages", params={"agent": agent.slug, "user": user}).json()
        assert [each["message"] for each in page["messages"]] == [f"I am {user}."]


def test_a_session_without_a_user(agent, key, calling, converse):
    converse(key, agent, "", "Hello", session="s")
    assert calling(key).get("/api/conversations/s", params={"agent": agent.slug}).json()["user"] is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/conversations/s", 400),
        ("/api/conversations/s?agent={agent}&user=a%2Fb", 400),
        ("/api/conversations/s/messages?agent={agent}&limit=201", 400),
        ("/api/conversations/s/messages?agent={agent}&cursor=-1", 400),
        ("/api/conversations/s/messages?agent={agent}&cursor=x", 400),
        ("/api/conversations/none?agent={agent}", 404),
        ("/api/conversations/s?agent={agent}&user=nobody", 404),
        ("/api/conversations/%00?agent={agent}", 404),
        ("/api/conversations/" + "s" * 129 + "?agent={agent}", 404),
    ],
)
def test_what_cannot_be_is_refused(agent, key, calling, converse, problem, path, status):
    converse(key, agent, "ada", "Hello", session="s")
    problem(calling(key).get(path.replace("{agent}", agent.slug)), status)


def test_the_scope_is_needed(agent, calling, api, problem):
    path = f"/api/conversations/s?agent={agent.slug}"
    problem(calling(make_key(agent, scopes=("chat", "manage_memories", "erase"))).get(path), 403, "The key may not do this")
    problem(api.get(path), 401)
