"""The reply cache: what is the same question, whose it is, and that nothing but an answer of ours is ever taken for one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import zlib

import pytest
from django_redis import get_redis_connection
from msgspec import structs

from agents.access import Caller, anonymous
from agents.chat.replies import CachedReply, key_of, look, read_reply, reply_name, write_reply
from agents.versions.live import load_draft
from memory.api import OpenedTurn, PastTurn, erase
from memory.models import Turn
from tests.factories import make_key, make_key_owner, make_version, unique
from tests.upstream import Refusal, Reply

REPLY = CachedReply(
    reply="From nine to five.", provider="p", model="m", finish_reason="stop", prompt_tokens=11, completion_tokens=7, cost_usd="0.018"
)
OPENED = OpenedTurn(1, 1, ())


def as_json(**fields):
    return json.dumps(structs.asdict(REPLY) | fields).encode()


@pytest.mark.parametrize("reply", [REPLY, structs.replace(REPLY, reply="long " * 1000, cost_usd=None)])
def test_what_is_written_is_read(reply):
    assert read_reply(write_reply(reply)) == reply
    assert len(write_reply(reply)) < 1024


@pytest.mark.parametrize(
    "value",
    [
        *(None, b"", b"null", b"[]", b"{}", b"{", b"7", b"\xff\xfe", b"\x80\x04\x95.", b'"text"', b"[" * 100_000),
        *(write_reply(REPLY)[:-1], zlib.compress(as_json())[:-3], zlib.compress(b"no json"), zlib.compress(b"[]")),
        *(as_json(reply=7), as_json(reply=""), as_json(prompt_tokens="11"), as_json(cost_usd="-1"), as_json(cost_usd="NaN")),
        *(as_json(cost_usd="free"), as_json(cost_usd="Infinity"), as_json(model=None)),
    ],
)
def test_what_is_not_an_answer_of_ours_is_a_miss(value):
    assert read_reply(value) is None


@pytest.fixture
def answering(db):
    from tests.factories import make_agent

    return load_draft(make_agent(published=False).slug)


def test_whatever_can_change_an_answer_changes_its_key(answering):
    caller = Caller(owner="owner:1", key_id="k1")
    base = {"caller": caller, "user": "", "message": "Hi", "opened": OPENED}
    other_model = dataclasses.replace(answering.choices[0], model="another")
    keys = [
        key_of(changed, **(base | fields))
        for changed, fields in [
            (answering, {}),
            (answering, {"message": "Hi!"}),
            (answering, {"user": "ada"}),
            (answering, {"user": "bob"}),
            (answering, {"caller": Caller(owner="owner:2", key_id="k2")}),
            (answering, {"caller": anonymous("::1")}),
            (answering, {"opened": structs.replace(OPENED, summary="They said hello.")}),
            (answering, {"opened": structs.replace(OPENED, recent=(PastTurn("a", "b"),))}),
            (answering, {"opened": structs.replace(OPENED, recent=(PastTurn("ab", ""),))}),
            (dataclasses.replace(answering, number=99), {}),
            (dataclasses.replace(answering, slug="other"), {}),
            (dataclasses.replace(answering, system_prompt="Be brief."), {}),
            (dataclasses.replace(answering, temperature=0.123), {}),
            (dataclasses.replace(answering, top_p=0.5), {}),
            (dataclasses.replace(answering, max_output_tokens=5), {}),
            (dataclasses.replace(answering, prompt_budget_tokens=500), {}),
            (dataclasses.replace(answering, choices=(other_model,)), {}),
        ]
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_tells_no_session_and_no_address_apart(answering):
    def key(caller, seq):
        return key_of(answering, caller=caller, user="", message="Hi", opened=OpenedTurn(seq, 1, (), subject_id=seq))

    assert key(anonymous("192.0.2.1"), 1) == key(anonymous("192.0.2.2"), 2)
    assert key(Caller(owner="owner:1", key_id="k1"), 1) == key(Caller(owner="owner:1", key_id="k2"), 2)


def test_one_of_the_same_questions_leads_and_says_so_again():
    key = unique("key")
    first, second = look([key, key], turns=["a", "b"], fresh=[False, False])
    assert (first.leads, second.leads) == (True, False)
    assert look([key], turns=["a"], fresh=[False])[0].leads


@pytest.fixture
def ask(api):
    def ask(agent, message="Hi", *, key=None, **fields):
        headers = {"Authorization": f"Bearer {key.secret}"} if key else {}
        headers |= {"Cache-Control": fields.pop("cache_control")} if "cache_control" in fields else {}
        return api.post(f"/api/chat/{agent.slug}", json={"message": message, **fields}, headers=headers)

    return ask


def test_a_cached_answer_is_told_as_one_and_streams_too(make_chat_agent, upstream, ask):
    upstream.script(Reply("From nine to five."))
    agent = make_chat_agent(upstream, reply_cache_s=60)
    first, again = ask(agent).json(), ask(agent).json()
    assert (first["cached"], again["cached"]) == (False, True)
    same = ("reply", "model", "finish_reason", "agent", "version")
    assert [first[name] for name in same] == [again[name] for name in same]
    assert first["session_id"] != again["session_id"]
    assert again["usage"]["cost_usd"] == "0.0000000000"
    streamed = ask(agent, stream=True)
    assert [line for line in streamed.text.splitlines() if line.startswith("event")] == ["event: start", "event: delta", "event: done"]
    assert '"cached":true' in streamed.text
    assert len(upstream.calls) == 1


def test_no_cache_asks_anew_and_renews(make_chat_agent, upstream, ask):
    upstream.script(Reply("old"), Reply("new"), Reply("newest"))
    agent = make_chat_agent(upstream, reply_cache_s=60)
    assert ask(agent).json()["reply"] == "old"
    fresh = ask(agent, cache_control="No-Cache").json()
    assert (fresh["reply"], fresh["cached"]) == ("new", False)
    kept = ask(agent).json()
    assert (kept["reply"], kept["cached"]) == ("new", True)


def test_answers_are_never_shared_between_owners_users_and_versions(make_chat_agent, upstream, ask):
    upstream.script(*(Reply(f"answer {number}") for number in range(1, 8)))
    agent = make_chat_agent(upstream, reply_cache_s=60)
    owner = make_key_owner()
    ours, also_ours, theirs = make_key(agent, owner=owner), make_key(agent, owner=owner), make_key(agent)
    told = [
        ask(agent).json()["reply"],
        ask(agent, key=ours).json()["reply"],
        ask(agent, key=theirs).json()["reply"],
        ask(agent, key=ours, user="ada").json()["reply"],
        ask(agent, key=theirs, user="ada").json()["reply"],
    ]
    assert told == [f"answer {number}" for number in range(1, 6)]
    assert ask(agent, key=also_ours).json()["reply"] == "answer 2"
    assert ask(agent, key=also_ours, user="ada").json()["reply"] == "answer 4"
    version = make_version(agent, temperature=0.1)
    pinned = make_key(agent, scopes=("chat", "pinned_versions"), owner=owner)
    assert ask(agent, key=pinned, version=version.number).json()["reply"] == "answer 6"


def test_a_conversation_that_goes_on_is_another_question(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, reply_cache_s=60)
    session = ask(agent).json()["session_id"]
    assert not ask(agent, session_id=session).json()["cached"]
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("fields", [{"memory_enabled": True, "reply_cache_s": 60}, {"reply_cache_s": 0}])
def test_agents_that_remember_and_those_without_a_cache_keep_nothing(make_chat_agent, upstream, ask, fields):
    agent = make_chat_agent(upstream, **fields)
    assert [ask(agent).json()["cached"] for _ in range(2)] == [False, False]


@pytest.mark.parametrize("first", [Reply("cut", finish_reason="length"), Refusal(400)])
def test_only_whole_answers_are_kept(make_chat_agent, upstream, ask, first):
    upstream.script(first, Reply("whole"))
    agent = make_chat_agent(upstream, reply_cache_s=60)
    ask(agent)
    assert [ask(agent).json().get("cached") for _ in range(2)] == [False, True]


def test_a_poisoned_answer_is_replaced(make_chat_agent, upstream, ask):
    upstream.script(Reply("mine"))
    agent = make_chat_agent(upstream, reply_cache_s=60)
    redis = get_redis_connection("default")
    before = set(redis.keys(reply_name("*")))
    ask(agent)
    mine = [name for name in set(redis.keys(reply_name("*"))) - before if b"mine" in (redis.get(name) or b"")]
    for poison in (b"{}", b"\x80\x04K\x01.", b'{"reply": 1}'):
        for name in mine:
            redis.set(name, poison, ex=60)
        answer = ask(agent).json()
        assert (answer["reply"], answer["cached"]) == ("mine", False)
        assert ask(agent).json()["cached"]


def test_who_is_erased_leaves_no_answer_for_others(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, reply_cache_s=60)
    message_id = ask(agent).json()["message_id"]
    assert ask(agent).json()["cached"]
    subject_id = Turn.objects.select_related("conversation").get(pk=message_id).conversation.subject_id
    receipt = asyncio.run(erase(subject_id, actor="test"))
    assert receipt.counts["replies"] == 1
    assert not ask(agent).json()["cached"]
