"""The contract's good case: what a client gets back, as JSON and as a stream, and what is stored of it."""

import re
import uuid

import pytest

from agents.versions.drafts import discard_draft
from memory.models import Turn, TurnState
from tests.factories import make_version
from tests.sse import text_of
from tests.upstream import Reply

REPLY = "Grüße! 你好, <b>bold</b> & {{7*7}} {x.__class__} %(x)s 🙂"


def test_a_json_answer_has_the_contracts_shape(make_chat_agent, upstream, ask):
    upstream.script(Reply(REPLY, usage=(21, 5)))
    agent = make_chat_agent(upstream, model="gpt-test")
    response = ask(agent, "Hello!")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert re.fullmatch(r"[A-Za-z0-9_.-]{20,128}", answer.pop("session_id"))
    assert uuid.UUID(answer.pop("message_id")).version == 7
    assert answer == {
        "reply": REPLY,
        "agent": agent.slug,
        "version": 1,
        "model": "gpt-test",
        "cached": False,
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 21, "completion_tokens": 5, "cost_usd": None, "saved_usd": "0.0000000000"},
    }


def test_the_first_curl_of_the_readme_works(make_chat_agent, upstream, api):
    agent = make_chat_agent(upstream)
    body = b'{"message": "How do I reset my password?", "sessionId": "user-123"}'
    response = api.post(f"/api/chat/{agent.slug}", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert response.json()["session_id"] == "user-123"


@pytest.mark.parametrize("how", ["accept", "field"])
def test_a_stream_starts_flows_and_ends_with_the_json_answer(make_chat_agent, upstream, ask, how):
    from tests.sse import read_events

    upstream.script(Reply(REPLY, usage=(21, 5)))
    agent = make_chat_agent(upstream)
    response = ask(agent, headers={"Accept": "text/event-stream"}) if how == "accept" else ask(agent, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    events = read_events(response.text)
    start, *deltas, done = events
    assert (start.name, {event.name for event in deltas}, done.name) == ("start", {"delta"}, "done")
    assert set(start.data) == {"message_id", "session_id", "agent", "version"}
    assert text_of(events) == done.data["reply"] == REPLY
    assert [event.id for event in events] == [f"{start.data['message_id']}:{number}" for number in range(len(events))]
    assert {key: done.data[key] for key in start.data} == start.data
    assert done.data["usage"]["prompt_tokens"] == 21


def test_the_stream_flows_while_the_model_still_speaks(make_chat_agent, upstream, server):
    from tests.upstream import Gate

    gate = Gate()
    upstream.script(Reply("one twofold three", gate=gate, gate_before_chunk=2))
    agent = make_chat_agent(upstream)
    with (
        server.client() as client,
        client.stream("POST", f"/api/chat/{agent.slug}", json={"message": "Hi", "stream": True}) as response,
    ):
        seen = ""
        parts = response.iter_text()
        while "one" not in seen:
            seen += next(parts)
        assert "twofold" not in seen  # made ids hold three letters now and then
        gate.open()
        assert "three" in seen + "".join(parts)


@pytest.mark.parametrize(
    "how",
    [
        {"split_every_byte": True},
        {"all_in_one_packet": True},
        {"comments": True, "crlf": True},
        {"gzip": True},
        {"chunks": ["", "a" * 70_000, "", "b"]},
    ],
    ids=lambda how: next(iter(how)),
)
def test_however_the_upstream_cuts_its_stream_up_the_text_is_exact(make_chat_agent, upstream, ask_for_events, how):
    reply = Reply(**{"text": REPLY, **how})
    upstream.script(reply)
    events = ask_for_events(make_chat_agent(upstream))
    assert events[-1].name == "done", events[-1]
    assert text_of(events) == events[-1].data["reply"] == reply.text_for("")


def test_length_and_content_filter_are_told(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream)
    for reason in ("length", "content_filter"):
        upstream.script(Reply(finish_reason=reason))
        assert ask(agent).json()["finish_reason"] == reason
        assert ask(agent, stream=True).text.count(f'"finish_reason":"{reason}"') == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_is_stored_whole(make_chat_agent, upstream, ask, stream):
    upstream.script(Reply(REPLY, usage=(21, 5)))
    agent = make_chat_agent(upstream)
    ask(agent, "Hé\u202e!", stream=stream, metadata={"page": "/help"}, headers={"X-Request-ID": "request-0001"})
    turn = Turn.objects.get(agent=agent.slug)
    assert (turn.message, turn.reply, turn.state, turn.seq, turn.version) == ("Hé\u202e!", REPLY, TurnState.DONE, 1, 1)
    assert (turn.prompt_tokens, turn.completion_tokens, turn.usage_estimated) == (21, 5, False)
    assert (turn.metadata, turn.request_id, turn.finish_reason) == ({"page": "/help"}, "request-0001", "stop")
    assert turn.finished_at > turn.created_at


def test_usage_that_the_upstream_does_not_tell_is_estimated_and_marked(make_chat_agent, upstream, ask):
    upstream.script(Reply("one two three", usage=None))
    agent = make_chat_agent(upstream)
    for stream in (False, True):
        assert ask(agent, stream=stream).status_code == 200
    for turn in Turn.objects.filter(agent=agent.slug):
        assert turn.usage_estimated
        assert turn.completion_tokens == 3
        assert turn.prompt_tokens > 5


def test_what_is_sent_upstream_follows_the_version(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, model="m-1", system_prompt="{{7*7}} %(x)s {x}", temperature=0.5, top_p=0.9, max_output_tokens=77)
    ask(agent, "Hi", stream=True)
    body = upstream.calls[0].body
    assert body["messages"] == [{"role": "system", "content": "{{7*7}} %(x)s {x}"}, {"role": "user", "content": "Hi"}]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("m-1", 0.5, 0.9, 77)
    assert body["stream_options"] == {"include_usage": True}
    assert "metadata" not in body


def test_a_draft_changes_nothing_until_it_is_published(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream, system_prompt="First.")
    make_version(agent, published=False, system_prompt="Second.")
    assert ask(agent).json()["version"] == 1
    assert upstream.calls[-1].messages[0]["content"] == "First."
    discard_draft(agent)


def test_agents_are_listed_and_described(make_chat_agent, upstream, api, problem):
    agent = make_chat_agent(upstream, name="Support", description="Helps.", greeting="Hi there")
    hidden = [
        make_chat_agent(upstream, access="key"),
        make_chat_agent(upstream, published=False),
        make_chat_agent(upstream, is_active=False),
    ]
    card = {"slug": agent.slug, "name": "Support", "description": "Helps.", "greeting": "Hi there", "version": 1, "demo": False}
    assert api.get(f"/api/agents/{agent.slug}").json() == card
    listed = {found["slug"]: found for found in api.get("/api/agents").json()["agents"]}
    assert listed[agent.slug] == card
    for other in hidden:
        assert other.slug not in listed
        problem(api.get(f"/api/agents/{other.slug}"), 404, "Agent not found")
