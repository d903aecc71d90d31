"""Keys over HTTP: a key hands on what it has and nothing else, and other owners' keys do not exist for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from agents.access.issuing import revoke_key
from agents.models import ApiKey, Scope
from observability.models import Budget
from tests.factories import make_agent, make_key, make_key_owner, unique
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("live_db")
MANAGING = ("chat", "manage_keys")


@pytest.fixture
def agent():
    return make_agent(access="key")


@pytest.fixture
def manager(agent):
    return make_key(agent, scopes=MANAGING)


def make(client, agent, **fields):
    return client.post("/api/keys", json={"name": "shop", "agents": [agent.slug], **fields})


def test_a_key_is_made_shown_once_and_works(make_chat_agent, upstream, calling, chat):
    agent = make_chat_agent(upstream, access="key")
    manager = make_key(agent, scopes=MANAGING)
    response = make(calling(manager), agent, expires_in_s=3600)
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
    made = response.json()
    assert made["key"].startswith(made["id"] + ".")
    assert (made["name"], made["state"], made["scopes"], made["agents"]) == ("shop", "active", ["chat"], [agent.slug])
    assert abs(datetime.fromisoformat(made["expires_at"]) - timezone.now() - timedelta(hours=1)) < timedelta(minutes=1)
    assert chat(calling(made["key"]), agent).status_code == 200
    listed = calling(manager).get("/api/keys")
    assert [key["id"] for key in listed.json()["keys"]] == [made["id"], manager.key.prefix]
    assert made["key"].partition(".")[2] not in listed.text
    assert ApiKey.objects.get(prefix=made["id"]).owner == manager.key.owner


def test_what_a_key_makes_or_rotates_spends_from_its_budget_at_once(make_chat_agent, upstream, calling, chat, problem):
    agent = make_chat_agent(upstream, access="key")
    manager = make_key(agent, scopes=MANAGING)
    sister = make_key(agent, owner=manager.key.owner)
    budget = Budget.objects.create(name=unique("budget"), scope="key", key=manager.key.prefix, limit_tokens=1)
    eventually(lambda: chat(calling(manager), agent).status_code == 402, what="the budget holds")
    made = make(calling(manager), agent).json()["key"]
    problem(chat(calling(made), agent), 402)
    assert chat(calling(sister), agent).status_code == 200
    rotated = calling(manager).post(f"/api/keys/{sister.key.prefix}/rotate", json={}).json()["key"]
    assert budget.name in problem(chat(calling(rotated), agent), 402)["detail"]
    assert chat(calling(sister), agent).status_code == 200


@pytest.mark.parametrize("scope", sorted(set(Scope.values) - {"manage_keys"}))
def test_a_key_gives_no_scope_that_it_lacks(calling, problem, agent, scope):
    manager = make_key(agent, scopes=set(Scope.values) - {scope})
    answer = problem(make(calling(manager), agent, scopes=[scope]), 403, "The key may not do this")
    assert f"'{scope}'" in answer["detail"]
    assert manager.key.owner.keys.count() == 1


def test_a_key_gives_no_agent_that_it_does_not_open(calling, problem, manager):
    unopened = make_agent()
    for slug in (unopened.slug, "no-such-agent"):
        problem(calling(manager).post("/api/keys", json={"name": "shop", "agents": [slug]}), 404, "Agent not found")
    problem(calling(manager).post("/api/keys", json={"name": "shop", "all_agents": True}), 403)
    everything = make_key(scopes=MANAGING, all_agents=True)
    made = calling(everything).post("/api/keys", json={"name": "shop", "all_agents": True})
    assert made.json()["agents"] is None


def test_a_key_is_not_outlived_by_those_it_makes(calling, agent):
    ends_at = timezone.now().replace(microsecond=0) + timedelta(hours=1)
    manager = make_key(agent, scopes=MANAGING, expires_at=ends_at)
    for fields in ({}, {"expires_in_s": 86_400}):
        assert datetime.fromisoformat(make(calling(manager), agent, **fields).json()["expires_at"]) == ends_at


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"agents": []}, None),
        ({"all_agents": True}, None),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"owner": "another"}, "owner"),
    ],
)
def test_bad_bodies_are_told_field_by_field(calling, problem, manager, agent, fields, wrong):
    answer = problem(make(calling(manager), agent, **fields), 400)
    assert wrong is None or any(name.startswith(wrong) for name in answer["errors"])


def test_rotating_gives_a_successor_and_an_overlap(make_chat_agent, upstream, calling, chat):
    agent = make_chat_agent(upstream, access="key")
    manager = make_key(agent, scopes=MANAGING)
    old = make_key(agent, owner=manager.key.owner)
    response = calling(manager).post(f"/api/keys/{old.key.prefix}/rotate", json={"overlap_s": 3600})
    assert response.status_code == 201, response.text
    made = response.json()
    assert (made["replaces"], made["scopes"], made["agents"]) == (old.key.prefix, ["chat"], [agent.slug])
    ends_at = datetime.fromisoformat(made["old_expires_at"])
    assert abs(ends_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    assert {chat(calling(key), agent).status_code for key in (old, made["key"])} == {200}


def test_a_key_rotates_itself(calling, problem, manager):
    address = f"/api/keys/{manager.key.prefix}/rotate"
    made = calling(manager).post(address, json={}).json()
    assert calling(made["key"]).get("/api/keys").status_code == 200
    problem(calling(manager).post(address, json={}), 409, "The key cannot be rotated")
    problem(calling(made["key"]).post(f"/api/keys/{made['id']}/rotate", json={"overlap_s": 90 * 86_400 + 1}), 400)


def test_a_key_never_outlives_itself_by_rotating(calling, agent):
    ends_at = timezone.now().replace(microsecond=0) + timedelta(hours=1)
    manager = make_key(agent, scopes=MANAGING, expires_at=ends_at)
    ApiKey.objects.filter(pk=manager.key.pk).update(created=timezone.now() - timedelta(days=30))
    secret, id = manager.secret, manager.key.prefix
    for _ in range(3):
        made = calling(secret).post(f"/api/keys/{id}/rotate", json={}).json()
        assert datetime.fromisoformat(made["expires_at"]) == ends_at
        assert datetime.fromisoformat(made["old_expires_at"]) <= ends_at
        secret, id = made["key"], made["id"]


def test_a_key_that_ends_sooner_gives_a_rotated_key_no_longer_life(calling, agent):
    ends_at = timezone.now().replace(microsecond=0) + timedelta(hours=1)
    manager = make_key(agent, scopes=MANAGING, expires_at=ends_at)
    for theirs in (None, ends_at + timedelta(days=30)):
        other = make_key(agent, owner=manager.key.owner, expires_at=theirs)
        made = calling(manager).post(f"/api/keys/{other.key.prefix}/rotate", json={}).json()
        assert datetime.fromisoformat(made["expires_at"]) == ends_at


@pytest.mark.parametrize("more", ["scope", "agent", "every agent"])
def test_a_key_that_opens_more_is_revoked_but_not_rotated(calling, problem, agent, manager, more):
    fields = {"scope": {"scopes": ("chat", "erase")}, "agent": {}, "every agent": {"all_agents": True}}[more]
    other = make_key(agent, *([make_agent()] if more == "agent" else []), owner=manager.key.owner, **fields)
    problem(calling(manager).post(f"/api/keys/{other.key.prefix}/rotate", json={}), 403, "The key may not do this")
    assert not ApiKey.objects.filter(replaces=other.key).exists()
    assert calling(manager).delete(f"/api/keys/{other.key.prefix}").json()["state"] == "revoked"


def test_a_revoked_key_is_refused_within_seconds(make_chat_agent, upstream, calling, chat):
    agent = make_chat_agent(upstream, access="key")
    manager = make_key(agent, scopes=MANAGING)
    other = make_key(agent, owner=manager.key.owner)
    assert chat(calling(other), agent).status_code == 200
    for _ in range(2):  # once more changes nothing
        assert calling(manager).delete(f"/api/keys/{other.key.prefix}").json()["state"] == "revoked"
    eventually(lambda: chat(calling(other), agent).status_code == 401, what="the key is refused", timeout_s=15)


def test_what_a_key_has_lost_a_moment_ago_it_cannot_hand_on(calling, problem, manager, agent):
    client = calling(manager)
    assert client.get("/api/keys").status_code == 200
    ApiKey.objects.filter(pk=manager.key.pk).update(scopes=["manage_keys"])
    problem(make(client, agent), 403)
    revoke_key(manager.key)
    problem(make(client, agent, scopes=["manage_keys"]), 401)


# --- whose keys -------------------------------------------------------------------------------------------------------

ROUTES = [("GET", ""), ("POST", ""), ("DELETE", "/{id}"), ("POST", "/{id}/rotate")]


def call(client, method, route, id, agent):
    body = {"name": "shop", "agents": [agent.slug]} if route == "" else {}
    return client.request(method, "/api/keys" + route.format(id=id), json=None if method in ("GET", "DELETE") else body)


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize("who", ["nobody", "without the scope", "token", "revoked"])
def test_who_may_not_manage_keys_changes_nothing(api, calling, problem, agent, manager, who, method, route):
    other = make_key(agent, owner=manager.key.owner)
    if who == "nobody":
        client, status = api, 401
    elif who == "revoked":
        gone = make_key(agent, owner=manager.key.owner, scopes=MANAGING)
        revoke_key(gone.key)
        client, status = calling(gone), 401
    elif who == "token":
        client, status = calling(calling(manager).post("/api/tokens", json={"user": "ada"}).json()["token"]), 403
    else:
        client, status = calling(make_key(agent, owner=manager.key.owner, scopes=set(Scope.values) - {"manage_keys"})), 403
    before = list(manager.key.owner.keys.order_by("pk").values_list("prefix", "revoked", "expiry_date"))
    problem(call(client, method, route, other.key.prefix, agent), status)
    assert list(manager.key.owner.keys.order_by("pk").values_list("prefix", "revoked", "expiry_date")) == before


@pytest.mark.parametrize(("method", "route"), [each for each in ROUTES if "{id}" in each[1]])
def test_a_foreign_key_is_the_same_404_as_one_that_does_not_exist(calling, problem, agent, manager, method, route):
    foreign = make_key(agent, owner=make_key_owner())
    answers = [problem(call(calling(manager), method, route, id, agent), 404, "Key not found") for id in (foreign.key.prefix, "Nobodys1")]
    assert answers[0] == answers[1]
    assert ApiKey.objects.filter(pk=foreign.key.pk, revoked=False, expiry_date=None).exists()
    for id in ("%00", "x" * 500, str(manager.key.pk)):
        problem(call(calling(manager), method, route, id, agent), 404)


def test_the_list_holds_no_foreign_key(calling, agent, manager):
    foreign, sister = make_key(agent, scopes=MANAGING), make_key(agent, owner=manager.key.owner)
    ids = {key["id"] for key in calling(manager).get("/api/keys").json()["keys"]}
    assert ids == {manager.key.prefix, sister.key.prefix}
    assert foreign.key.prefix not in ids
