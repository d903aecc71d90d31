"""What becomes of a turn whose upstream fails: retries, fallbacks, then a clear 502 or 504, and what had arrived is kept."""

import time

import httpx2
import pytest

from memory.models import Turn, TurnState
from tests.upstream import Gate, RawBytes, Redirect, Refusal, Reply, Silence
from tests.waiting import timely


def turn_of(agent):
    return Turn.objects.get(agent=agent.slug)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "calls"),
    [
        (Refusal(500), 3),
        (Refusal(503, body=b"<html>upstream exploded: secret-detail</html>"), 3),
        (Refusal(429), 3),
        (Refusal(400, "secret-detail"), 1),
        (Refusal(401, "Incorrect API key provided: secret-detail"), 1),
        (Refusal(404, "The model does not exist"), 1),
        (Redirect("http://127.0.0.1:9/secret-detail"), 1),
        (RawBytes(b""), 3),
        (RawBytes(b"", cut="rst"), 3),
        (RawBytes(b"garbage secret-detail\r\n\r\n"), None),
        (RawBytes(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[1, 2, 3]"), None),
        (Reply(empty_choices=True), None),
        (Reply(""), None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_upstream_that_fails_is_a_502_that_says_nothing_internal(make_chat_agent, upstream, ask, problem, behaviour, calls, stream):
    upstream.script(behaviour)
    agent = make_chat_agent(upstream)
    response = ask(agent, stream=stream)
    if stream:
        from tests.sse import read_events

        start, error = read_events(response.text)
        assert (start.name, error.name) == ("start", "error")
        document = error.data
        assert document["status"] == 502
    else:
        document = problem(response, 502)
    assert document["error"] == "Failed to process message"
    assert document["type"] == "/errors/upstream-failed"
    assert "secret-detail" not in response.text
    assert "127.0.0.1" not in response.text
    if calls is not None:
        assert len(upstream.calls) == calls
    turn = turn_of(agent)
    assert (turn.state, turn.reply, turn.error_code) == (TurnState.FAILED, "", "upstream-failed")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "silence", [Silence(), Silence(after_headers=True), Reply(delay_before_headers_s=300)], ids=["none", "head", "late"]
)
def test_an_upstream_that_says_nothing_is_a_504_and_is_hung_up_on(make_chat_agent, upstream, ask, problem, silence, stream):
    upstream.script(silence)
    agent = make_chat_agent(upstream, provider={"first_token_timeout_s": 4, "total_timeout_s": 4})
    started = time.monotonic()
    response = ask(agent, stream=stream)
    assert time.monotonic() - started < 20
    if stream:
        assert '"status":504' in response.text
        assert "Failed to process message" in response.text
    else:
        problem(response, 504, "Failed to process message")
    upstream.wait_for_disconnect()
    assert (turn_of(agent).state, turn_of(agent).error_code) == (TurnState.FAILED, "upstream-timed-out")


def test_a_stream_that_falls_silent_is_ended_and_what_came_is_kept(make_chat_agent, upstream, ask_for_events):
    upstream.script(Reply("one two three", delay_between_s=300))
    agent = make_chat_agent(upstream, provider={"between_tokens_timeout_s": 0.5})
    events = ask_for_events(agent)
    assert [event.name for event in events] == ["start", "delta", "error"]
    assert events[-1].data["status"] == 504
    assert len({event.id for event in events}) == 3
    upstream.wait_for_disconnect()
    assert (turn_of(agent).state, turn_of(agent).reply) == (TurnState.INTERRUPTED, "one")


def test_a_stream_without_end_meets_the_total_timeout(make_chat_agent, upstream, ask_for_events):
    upstream.script(Reply("on ", never_ends=True, delay_between_s=0.05))
    agent = make_chat_agent(upstream, provider={"total_timeout_s": 2})
    started = time.monotonic()
    events = ask_for_events(agent)
    assert 1.5 < time.monotonic() - started < 20
    assert events[-1].data["status"] == 504
    upstream.wait_for_disconnect()


def test_an_endless_reply_is_cut_at_the_longest_one_allowed(make_chat_agent, upstream, start_server):
    upstream.script(Reply(chunks=["x" * 1000], never_ends=True))
    agent = make_chat_agent(upstream)
    with start_server(CHAT_MAX_REPLY_CHARS="5500").client() as client:
        response = client.post(f"/api/chat/{agent.slug}", json={"message": "Go", "stream": True})
    assert '"finish_reason":"length"' in response.text
    upstream.wait_for_disconnect()
    turn = turn_of(agent)
    assert (turn.state, turn.reply, turn.finish_reason) == (TurnState.DONE, "x" * 5500, "length")
    assert turn.usage_estimated


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_hangs_leaves_its_fallback_time_to_answer(make_chat_agent, upstream, open_upstream, api, stream):
    upstream.script(Silence())
    other = open_upstream()
    other.script(Reply("I am the fallback"))
    agent = make_chat_agent(upstream, provider={"first_token_timeout_s": 6, "total_timeout_s": 6}, fallbacks=[(other, "second")])
    response = api.post(f"/api/chat/{agent.slug}", json={"message": "Hello", "stream": stream})
    assert "I am the fallback" in response.text
    upstream.wait_for_disconnect()


@pytest.mark.parametrize("cut", ["fin", "rst"])
@pytest.mark.parametrize(
    "broken",
    [{"cut_after_chunks": 2}, {"error_after_chunks": 2}, {"invalid_json_after_chunks": 2}],
    ids=lambda broken: next(iter(broken)),
)
def test_a_stream_that_breaks_midway_is_not_retried_and_what_came_is_kept(make_chat_agent, upstream, ask_for_events, broken, cut):
    upstream.script(Reply("one two three four", cut=cut, delay_between_s=0.01, **broken), Reply("never asked"))
    agent = make_chat_agent(upstream)
    events = ask_for_events(agent)
    assert events[-1].name == "error"
    assert events[-1].data["error"] == "Failed to process message"
    assert "".join(event.data["text"] for event in events if event.name == "delta") == "one two"
    assert len(upstream.calls) == 1
    turn = turn_of(agent)
    assert (turn.state, turn.reply, turn.error_code) == (TurnState.INTERRUPTED, "one two", "upstream-failed")


def test_garbage_between_events_breaks_nothing_or_fails_clearly(make_chat_agent, upstream, ask_for_events):
    upstream.script(Reply("one two three", garbage_after_chunks=1))
    events = ask_for_events(make_chat_agent(upstream))
    assert events[-1].name in ("done", "error")
    if events[-1].name == "done":
        assert events[-1].data["reply"] == "one two three"


def test_a_missing_end_marker_after_a_finish_reason_is_fine(make_chat_agent, upstream, ask_for_events):
    upstream.script(Reply("one two", done_marker=False))
    assert ask_for_events(make_chat_agent(upstream))[-1].data["reply"] == "one two"


@pytest.mark.parametrize("stream", [False, True])
def test_retry_after_is_honoured_once(make_chat_agent, upstream, ask, stream):
    upstream.script(Refusal(429, retry_after_s=1), Reply("Now"))
    agent = make_chat_agent(upstream)
    assert "Now" in ask(agent, stream=stream).text
    first, second = upstream.calls
    assert 1.0 <= second.started_at - first.started_at < 10


def test_a_retry_after_that_is_too_long_goes_to_the_fallback_at_once(make_chat_agent, upstream, open_upstream, ask):
    other = open_upstream()
    upstream.script(Refusal(429, retry_after_s=120))
    other.script(Reply("From the other"))
    started = time.monotonic()
    answer = ask(make_chat_agent(upstream, fallbacks=[(other, "other-model")])).json()
    assert time.monotonic() - started < 30
    assert (answer["reply"], answer["model"]) == ("From the other", "other-model")
    assert (len(upstream.calls), len(other.calls)) == (1, 1)


def test_a_transient_error_is_retried_and_the_turn_is_stored_once(make_chat_agent, upstream, ask):
    upstream.script(Refusal(500), RawBytes(cut="rst"), Reply("Third time"))
    agent = make_chat_agent(upstream)
    assert ask(agent).json()["reply"] == "Third time"
    assert (len(upstream.calls), turn_of(agent).state) == (3, TurnState.DONE)


@pytest.mark.parametrize("stream", [False, True])
def test_the_fallback_chain_is_walked_in_order(make_chat_agent, upstream, open_upstream, ask, stream):
    second, third = open_upstream(), open_upstream()
    upstream.script(Refusal(401))
    second.script(Silence())
    third.script(Reply("Third answers"))
    agent = make_chat_agent(
        upstream, provider={"first_token_timeout_s": 6, "total_timeout_s": 20}, fallbacks=[(second, "two"), (third, "three")]
    )
    if not stream:
        second.script(Refusal(404))
    assert "Third answers" in ask(agent, stream=stream).text
    assert [len(found.calls) for found in (upstream, second, third)] == [1, 1, 1]
    turn = turn_of(agent)
    assert (turn.model, turn.state) == ("three", TurnState.DONE)


def test_when_the_whole_chain_fails_the_answer_is_502(make_chat_agent, upstream, open_upstream, ask, problem):
    other = open_upstream()
    upstream.script(Refusal(400))
    other.script(Refusal(400))
    problem(ask(make_chat_agent(upstream, fallbacks=[(other, "m")])), 502, "Failed to process message")
    assert len(other.calls) == 1


def test_nobody_listens(make_chat_agent, upstream, ask, problem):
    agent = make_chat_agent(upstream)
    provider = agent.live_version.provider
    provider.base_url = "http://127.0.0.1:9/v1"
    provider.save()
    problem(ask(agent), 502, "Failed to process message")


def test_an_upstream_on_a_private_address_is_refused(make_chat_agent, upstream, start_server):
    agent = make_chat_agent(upstream)
    with start_server(OUTBOUND_ALLOWED_HOSTS="").client() as client:
        response = client.post(f"/api/chat/{agent.slug}", json={"message": "Hi"})
    assert response.status_code == 502
    assert upstream.calls == []


def test_a_failing_upstream_does_not_slow_its_neighbours(make_chat_agent, upstream, open_upstream, server):
    """32 callers wait on a silent upstream; another agent answers meanwhile."""
    from concurrent.futures import ThreadPoolExecutor

    gate, healthy = Gate(), open_upstream()
    upstream.script(Reply("At last", gate=gate))
    silent, lively = make_chat_agent(upstream), make_chat_agent(healthy)

    def post():
        with httpx2.Client(base_url=server.url, trust_env=False) as client:
            return client.post(f"/api/chat/{silent.slug}", json={"message": "Hi"}, timeout=120).status_code

    with ThreadPoolExecutor(32) as pool:
        waiting = [pool.submit(post) for _ in range(32)]
        upstream.wait_for_calls(32)
        with server.client() as client:
            for _ in range(5):
                answer = timely(lambda: client.post(f"/api/chat/{lively.slug}", json={"message": "Hi"}), within_s=1)
                assert answer.status_code == 200
        assert not any(future.done() for future in waiting)
        gate.open()
        assert {future.result() for future in waiting} == {200}
