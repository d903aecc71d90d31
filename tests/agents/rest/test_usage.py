"""GET /api/usage: what an owner's keys used, as JSON and CSV, and nothing of anybody else's."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from memory.models import Conversation, Subject
from observability.models import AttemptKind
from tests.factories import make_agent, make_key
from tests.ledger import NOON, spend

pytestmark = pytest.mark.usefixtures("live_db")
DAY = NOON.date()
DAYS = f"from={DAY - timedelta(days=6)}&to={DAY}"


@pytest.fixture
def agent():
    return make_agent()


@pytest.fixture
def key(agent):
    return make_key(agent, scopes=["usage", "chat"])


@pytest.fixture
def usage(key, calling):
    def usage(query="", *, as_key=None, **headers):
        return calling(as_key or key).get(f"/api/usage?{query}", headers=headers)

    return usage


@pytest.fixture
def spending(agent, key):
    def spending(usd="1", **fields):
        return spend(usd, **{"agent": agent.slug, "key": key.key.prefix, **fields})

    return spending


def person(key, name):
    return Subject.objects.create(owner=f"owner:{key.key.owner_id}", name=name).pk


def test_the_forecast_is_of_this_month_and_of_the_owners_keys_alone(usage, spending):
    today = datetime.now(UTC).date()
    spending("2", started_at=datetime.now(UTC))
    spend("9", started_at=datetime.now(UTC))
    days_left = ((today.replace(day=28) + timedelta(days=4)).replace(day=1) - today).days - 1
    assert Decimal(usage().json()["forecast_usd"]) == 2 + 2 * days_left
    assert usage(f"from={today - timedelta(days=40)}").json()["forecast_usd"] is None


def test_one_line_of_everything(usage, spending):
    spending("1.25")
    spending("0.0000030", settled={"price": None}, price=None)
    answer = usage(DAYS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "from": str(DAY - timedelta(days=6)),
        "to": str(DAY),
        "by": [],
        "forecast_usd": None,
        "lines": [
            {
                "attempts": 2, "turns": 2, "failed": 0, "cached": 0, "routed": 0, "prompt_tokens": 1_250_003, "cached_tokens": 0,
                "completion_tokens": 0, "trimmed_tokens": 0, "cost_usd": "1.25", "saved_usd": "0", "saved_by_routing_usd": "0",
                    "routing_cost_usd": "0", "saved_by_trimming_usd": "0", "unpriced": 1, "saved_by_caching_usd": "0",
            }
        ],
    }  # fmt: skip


def test_nothing_used_is_no_line(usage):
    assert usage(DAYS).json()["lines"] == []


def test_lines_by_groups_in_their_order(usage, spending, agent, key):
    spending("1", model="small")
    spending("2", model="large", started_at=NOON - timedelta(days=1))
    spending("4", model="small", kind=AttemptKind.SUMMARY)
    lines = usage(f"{DAYS}&by=day,model,kind").json()["lines"]
    assert [(line["day"], line["model"], line["kind"], line["cost_usd"]) for line in lines] == [
        (str(DAY - timedelta(days=1)), "large", "chat", "2"),
        (str(DAY), "small", "chat", "1"),
        (str(DAY), "small", "summary", "4"),
    ]
    [line] = usage(f"{DAYS}&by=agent,key").json()["lines"]
    assert (line["agent"], line["key"], line["cost_usd"]) == (agent.slug, key.key.prefix, "7")


def conversation(key, agent, session_id, *, user="ada"):
    owner = f"owner:{key.key.owner_id}"
    subject, _ = Subject.objects.get_or_create(owner=owner, name=user)
    return Conversation.objects.create(subject=subject, owner=owner, agent=agent.slug, session_id=session_id).pk


def test_the_dearest_conversations(usage, spending, key, agent):
    other = make_key(agent, scopes=["usage"])
    spending("1", conversation_id=conversation(key, agent, "order-1"))
    dear = conversation(key, agent, "order-2")
    spending("2", conversation_id=dear)
    spending("2", conversation_id=dear, started_at=NOON - timedelta(days=2))
    spending("3", conversation_id=conversation(key, agent, "order-2", user="bob"))
    spending("9")  # of no conversation
    spending("9", conversation_id=conversation(other, agent, "foreign"), key=other.key.prefix)
    spending("0", conversation_id=conversation(key, agent, "cached"))
    lines = usage(f"{DAYS}&by=conversation,agent&dearest=2").json()["lines"]
    assert [(line["conversation"], line["agent"], line["cost_usd"]) for line in lines] == [
        ("order-2", agent.slug, "4"),
        ("order-2", agent.slug, "3"),
    ]
    Conversation.objects.filter(pk=dear).delete()
    lines = usage(f"{DAYS}&by=conversation&dearest=100").json()["lines"]
    assert [(line["conversation"], line["cost_usd"]) for line in lines] == [(None, "4"), ("order-2", "3"), ("order-1", "1")]
    assert "agent" not in lines[0]


def test_the_dearest_lines_of_other_groups(usage, spending, key):
    spending("1", subject_id=person(key, "ada"), model="small")
    spending("2", subject_id=person(key, "bob"), model="large")
    spending("4", subject_id=person(key, "session/s1"), model="middling")
    spending("8", model="large")  # nobody's
    spending("0", model="free")
    assert [line["user"] for line in usage(f"{DAYS}&by=user&dearest=2").json()["lines"]] == [None, "bob"]
    assert [line["model"] for line in usage(f"{DAYS}&by=model&dearest=9").json()["lines"]] == ["large", "middling", "small"]
    lines = usage(f"{DAYS}&by=model,user&dearest=9").json()["lines"]
    assert [(line["model"], line["user"]) for line in lines] == [("middling", None), ("large", "bob"), ("small", "ada")]
    assert usage(f"{DAYS}&dearest=1").json()["lines"][0]["cost_usd"] == "15"


def test_conversations_that_nobody_can_name_are_one_line(usage, spending, key, agent):
    spending("1", conversation_id=2**60)
    spending("2", conversation_id=2**60 + 1)
    spending("4")
    spending("8", conversation_id=conversation(key, agent, "s"))
    spending("16", conversation_id=conversation(key, agent, "s", user="bob"))
    lines = usage(f"{DAYS}&by=conversation").json()["lines"]
    assert sorted((line["conversation"] or "", line["cost_usd"]) for line in lines) == [("", "7"), ("s", "16"), ("s", "8")]


def test_users_have_their_names_and_the_erased_none(usage, spending, key):
    other = make_key(make_agent(), scopes=["usage"])
    ada = person(key, "ada")
    spending("1", subject_id=ada)
    spending("2", subject_id=person(key, "session/s1"))
    spending("4", subject_id=2**60)  # erased: no such person any more
    spending("8", subject_id=person(other, "foreign"))
    lines = usage(f"{DAYS}&by=user").json()["lines"]
    assert {line["user"]: line["cost_usd"] for line in lines} == {"ada": "1", None: "14"}


def test_all_keys_of_the_owner_and_no_others(usage, spending, agent, key):
    sister = make_key(agent, owner=key.key.owner, scopes=["usage"])
    stranger = make_key(agent, scopes=["usage"])
    spending("1")
    spending("2", key=sister.key.prefix)
    spending("4", key=stranger.key.prefix)
    spending("8", key="")
    for one in (key, sister):
        lines = usage(f"{DAYS}&by=key", as_key=one).json()["lines"]
        assert {line["key"]: line["cost_usd"] for line in lines} == {key.key.prefix: "1", sister.key.prefix: "2"}
    assert usage(DAYS, as_key=stranger).json()["lines"][0]["cost_usd"] == "4"


def test_only_of_one_agent(usage, spending, agent, problem):
    spending("1")
    spending("2", agent="another")
    assert usage(f"{DAYS}&agent={agent.slug}").json()["lines"][0]["cost_usd"] == "1"
    problem(usage(f"{DAYS}&agent={make_agent().slug}"), 404)


def test_this_month_where_no_days_are_given(usage, spending):
    spending("1", started_at=datetime.now(UTC))
    answer = usage().json()
    today = datetime.now(UTC).date()
    assert (answer["from"], answer["to"]) == (str(today.replace(day=1)), str(today))
    assert answer["lines"][0]["cost_usd"] == "1"


@pytest.mark.parametrize(("query", "headers"), [("&format=csv", {}), ("", {"Accept": "text/csv"})])
def test_csv(usage, spending, key, query, headers):
    spending("1.5", subject_id=person(key, '=HYPERLINK("x")'))
    answer = usage(f"{DAYS}&by=day,user{query}", **headers)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="usage-')
    [row] = csv.DictReader(io.StringIO(answer.text))
    assert (row["day"], row["user"], row["cost_usd"], row["turns"]) == (str(DAY), '\'=HYPERLINK("x")', "1.5", "1")


def test_json_where_the_address_says_so_whatever_is_accepted(usage):
    assert usage(f"{DAYS}&format=json", Accept="text/csv").headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("from=yesterday", "from", "must be a day such as 2026-11-01"),
        ("to=2026-02-30", "to", "must be a day"),
        ("from=2026-11-02&to=2026-11-01", "from", "is after 'to'"),
        ("from=2020-01-01&to=2026-11-01", "from", "more than 366 days"),
        ("by=day,planet", "by", "'planet'"),
        ("by=day,day", "by", "twice"),
        ("by=conversation,model", "by", "only with day, agent and key"),
        ("dearest=0", "dearest", "1"),
        ("dearest=101", "dearest", "100"),
        ("dearest=many", "dearest", "integer"),
        ("format=xml", "format", "json"),
        ("colour=red", "colour", "is not a"),
    ],
)
def test_what_is_wrong_is_named(usage, problem, query, field, words):
    document = problem(usage(query), 400)
    assert words in document["errors"][field][0]


def test_who_may_not(usage, agent, calling, key, api, problem):
    problem(usage(as_key=make_key(agent, scopes=["chat"])), 403)
    problem(api.get("/api/usage"), 401)
    token = calling(key).post("/api/tokens", json={"user": "ada"}).json()["token"]
    problem(calling(token).get("/api/usage"), 403)


def test_amounts_are_never_rounded(usage, spending):
    for _ in range(3):
        spending(str(Decimal(1) / 1_000_000))
    assert usage(DAYS).json()["lines"][0]["cost_usd"] == "0.000003"
