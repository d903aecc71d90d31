"""The upstream itself: what it is told to do is what a client sees, through the `openai` SDK and through bare HTTP."""

import json
from collections.abc import Iterator

import httpx2
import openai
import pytest

from tests.upstream import Gate, RawBytes, Redirect, Refusal, Reply, Silence, Upstream

PROMPT = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def sdk(upstream: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=upstream.base_url, api_key="k", max_retries=0, timeout=5) as client:
        yield client


def texts(sdk: openai.OpenAI, model: str = "m") -> list[str]:
    stream = sdk.chat.completions.create(model=model, messages=PROMPT, stream=True, stream_options={"include_usage": True})
    return [chunk.choices[0].delta.content for chunk in stream if chunk.choices and chunk.choices[0].delta.content]


def test_answers_json_with_usage_and_logs_the_call(upstream, sdk):
    upstream.script(Reply("Good day"))
    answer = sdk.chat.completions.create(model="m", messages=PROMPT)
    assert (answer.choices[0].message.content, answer.usage.total_tokens, answer.model) == ("Good day", 18, "m")
    [call] = upstream.wait_until(lambda calls: calls[0].finished_at is not None, "end")
    assert call.messages == PROMPT
    assert call.headers["authorization"] == "Bearer k"
    assert call.disconnected_at is None


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"split_every_byte": True},
        {"all_in_one_packet": True},
        {"comments": True, "crlf": True},
        {"gzip": True},
        {"gzip": True, "split_every_byte": True},
        {"done_marker": False},
        {"delay_before_headers_s": 0.01, "delay_before_first_s": 0.01, "delay_between_s": 0.01},
    ],
    ids=str,
)
def test_streams_the_same_text_however_it_is_cut_up(upstream, sdk, how):
    upstream.script(Reply("Grüße, wie geht es? 🙂", **how))
    assert texts(sdk) == ["Grüße,", " wie", " geht", " es?", " 🙂"]
    assert upstream.wait_until(lambda calls: calls[0].finished_at is not None, "end")[0].chunks_sent == 5


@pytest.mark.parametrize("cut", ["fin", "rst"])
@pytest.mark.parametrize("where", [{"cut_after_chunks": 2}, {"cut_after_bytes": 300}], ids=str)
def test_breaks_midway(upstream, sdk, cut, where):
    upstream.script(Reply("one two three four", cut=cut, **where))
    with pytest.raises((openai.APIError, httpx2.TransportError)):
        texts(sdk)


def test_plays_behaviours_in_turn_and_by_model(upstream, sdk):
    upstream.script(Refusal(429, retry_after_s=1), Reply("at last"))
    upstream.script(Refusal(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"), model="locked")
    with pytest.raises(openai.RateLimitError) as limited:
        texts(sdk)
    assert limited.value.response.headers["retry-after"] == "1"
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
        texts(sdk, "locked")
    assert texts(sdk) == texts(sdk) == ["at", " last"]


def test_sends_an_error_object_midway(upstream, sdk):
    upstream.script(Reply("one two three", error_after_chunks=1))
    with pytest.raises(openai.APIError, match="overloaded"):
        texts(sdk)


def test_sends_invalid_json_midway(upstream, sdk):
    upstream.script(Reply("one two three", invalid_json_after_chunks=1))
    with pytest.raises(json.JSONDecodeError):
        texts(sdk)


def test_silence_lasts_and_leaving_it_is_logged(upstream, sdk):
    upstream.script(Silence(), Silence(after_headers=True))
    for count in (1, 2):
        with pytest.raises((openai.APITimeoutError, httpx2.TimeoutException)):
            texts(sdk.with_options(timeout=0.1))
        assert len(upstream.wait_for_disconnect(count)) == count


def test_a_stream_without_end_stops_when_the_client_leaves(upstream, sdk):
    upstream.script(Reply("on and on ", never_ends=True, delay_between_s=0.001))
    with sdk.chat.completions.create(model="m", messages=PROMPT, stream=True) as stream:
        for _ in range(50):
            next(stream)
    [call] = upstream.wait_for_disconnect()
    assert call.chunks_sent >= 48


def test_a_gate_holds_the_stream_until_it_opens(upstream, sdk):
    gate = Gate()
    upstream.script(Reply("one two three", gate=gate, gate_before_chunk=2))
    stream = iter(sdk.chat.completions.create(model="m", messages=PROMPT, stream=True))
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "one"]
    upstream.wait_until(lambda calls: calls[0].chunks_sent == 1, "one word sent")
    assert upstream.calls[0].finished_at is None
    gate.open()
    assert [chunk.choices[0].delta.content for chunk in stream] == [" two", " three", None]


def test_raw_bytes_redirects_and_models(upstream):
    upstream.script(RawBytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), Redirect("http://127.0.0.1:9/elsewhere"), model="named")
    with httpx2.Client(base_url=upstream.base_url) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            client.post("/chat/completions", json={"model": "named"})
        assert client.post("/chat/completions", json={"model": "named"}).headers["location"] == "http://127.0.0.1:9/elsewhere"
        assert client.get("/models").json()["data"][0]["id"] == "named"
        assert client.get("/nothing").status_code == 404


def test_upstreams_do_not_share_scripts_or_logs(upstream_server):
    one, other = upstream_server.open(), upstream_server.open()
    one.script(Reply("one"))
    other.script(Reply("other"))
    with httpx2.Client() as client:
        for upstream in (one, other, one):
            client.post(f"{upstream.base_url}/chat/completions", json={"model": "m"})
    assert (len(one.calls), len(other.calls)) == (2, 1)
