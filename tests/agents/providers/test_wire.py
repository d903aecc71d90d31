"""The OpenAI wire over real HTTP: each way an upstream can behave becomes the right error, and no connection is left over."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import psutil
import pytest
import uvloop
from pytest_django import Settings

from agents.providers.base import ModelRequest, UpstreamFailed, UpstreamTimedOut, Usage
from agents.providers.keys import seal
from agents.providers.wire import OpenAIWire, _endpoint, _transport
from agents.versions.live import ProviderSnapshot
from tests.meters import NotingMeter
from tests.upstream import Gate, RawBytes, Redirect, Refusal, Reply, Silence, Upstream
from tests.waiting import eventually

TIMEOUTS = {"connect_timeout_s": 30.0, "first_token_timeout_s": 30.0, "between_tokens_timeout_s": 30.0, "total_timeout_s": 60.0}
"""None is met by a machine that is only slow; tests shorten the one that they are about."""


@pytest.fixture(autouse=True)
def _fresh_client(settings: Settings) -> Iterator[None]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
    _forget_clients()
    yield
    _forget_clients()


def _forget_clients() -> None:
    _endpoint.cache_clear()
    _transport.cache_clear()


def provider(upstream: Upstream | str, **fields: Any) -> ProviderSnapshot:
    base_url = upstream if isinstance(upstream, str) else upstream.base_url
    return ProviderSnapshot(
        **{"slug": "p", "base_url": base_url, "key_variable": "", "encrypted_key": "", "is_demo": False, **TIMEOUTS, **fields}
    )


def ask(*providers: ProviderSnapshot, stream: bool = True, meanwhile: Callable[[], None] | None = None, **fields: Any) -> list[Any]:
    """Ask each provider in turn, in one event loop; return (text, answer) or the error of each."""

    async def ask_all() -> list[Any]:
        outcomes = []
        for asked in providers:
            try:
                outcomes.append(await ask_one(asked, stream=stream, **fields))
            except UpstreamFailed as error:
                outcomes.append(error)
            if meanwhile:
                await asyncio.to_thread(meanwhile)
        await _transport().aclose()
        return outcomes

    try:
        return asyncio.run(ask_all())
    finally:
        _forget_clients()


def request_of(*, stream: bool = True, within_s: float = 60, **fields: Any) -> ModelRequest:
    return ModelRequest(
        messages=[{"role": "user", "content": "Hello"}],
        **{
            "temperature": None,
            "top_p": None,
            "max_output_tokens": 50,
            "stream": stream,
            "deadline": asyncio.get_running_loop().time() + within_s,
            "meter": NotingMeter(),
            **fields,
        },
    )


async def ask_one(asked: ProviderSnapshot, **fields: Any) -> tuple[str, Any]:
    answer = await OpenAIWire(asked, "test-model").start(request_of(**fields))
    return "".join([text async for text in answer]), answer


def connections_to(upstream: Upstream) -> int:
    """Return how many open connections this process has to the upstream's port."""
    port = int(upstream.netloc.partition(":")[2])
    found = psutil.Process(os.getpid()).net_connections("tcp")
    return sum(bool(item.raddr) and item.raddr.port == port and item.status == psutil.CONN_ESTABLISHED for item in found)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("gzip", [True, False])
def test_an_answer_comes_with_its_usage_and_the_connection_is_used_again(
    upstream: Upstream, stream: bool, gzip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.providers.wire._LINGER_ENDED_S", 30.0)  # a busy machine takes longer to end the body
    upstream.script(Reply("Hello there, friend", gzip=gzip, usage=(5, 3)))
    seen: list[int] = []
    asked = provider(upstream)
    for text, answer in ask(asked, asked, asked, stream=stream, meanwhile=lambda: seen.append(connections_to(upstream))):
        assert text == "Hello there, friend"
        assert (answer.finish_reason, answer.usage, answer.provider, answer.model) == ("stop", Usage(5, 3), "p", "test-model")
    assert seen == [1, 1, 1]


@pytest.mark.parametrize(
    "reply",
    [
        Reply("a b c", split_every_byte=True),
        Reply("a b c", all_in_one_packet=True),
        Reply("a b c", crlf=True, comments=True),
        Reply("a b c", done_marker=False),
        Reply("a b c", usage=None),
        Reply("a b c", garbage_after_chunks=1),
    ],
    ids=str,
)
def test_every_honest_shape_of_a_stream_reads_the_same(upstream: Upstream, reply: Reply) -> None:
    upstream.script(reply)
    [(text, answer)] = ask(provider(upstream))
    assert text == "a b c"
    assert answer.usage == (Usage(*reply.usage) if reply.usage else None)


@pytest.mark.parametrize(
    ("behaviour", "kind", "retryable"),
    [
        *((Refusal(status), UpstreamFailed, True) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)),
        *((Refusal(status), UpstreamFailed, False) for status in (400, 401, 403, 404, 405, 413, 422, 501)),
        (Refusal(500, body=b"<html>" + b"x" * 2_000_000), UpstreamFailed, True),
        (Redirect("http://127.0.0.1:9/elsewhere"), UpstreamFailed, False),
        (Redirect("http://169.254.169.254/latest/meta-data", status=307), UpstreamFailed, False),
        (RawBytes(), UpstreamFailed, True),
        (RawBytes(b"garbage, not HTTP\r\n\r\n"), UpstreamFailed, True),
        (RawBytes(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\nnot gzip"), UpstreamFailed, True),
        (RawBytes(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{}"), UpstreamFailed, True),
        (RawBytes(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>"), UpstreamFailed, True),
        (Reply(cut_after_bytes=0), UpstreamFailed, True),
        (Reply(chunks=[], usage=None), UpstreamFailed, True),
        (Reply(empty_choices=True), UpstreamFailed, True),
        (Silence(), UpstreamTimedOut, False),
        (Silence(after_headers=True), UpstreamTimedOut, False),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_answer_that_never_begins(upstream: Upstream, behaviour: Any, kind: type[UpstreamFailed], retryable: bool) -> None:
    upstream.script(behaviour)
    most_kept = 1 if isinstance(behaviour, Refusal | Redirect | Reply) else 0  # for the next request; all others are closed

    def check_connections() -> None:
        eventually(lambda: connections_to(upstream) <= most_kept, what="the connection closed")

    patience_s = 4.0 if kind is UpstreamTimedOut else 30.0  # so that a busy machine is not taken for a silent upstream
    [error] = ask(provider(upstream, first_token_timeout_s=patience_s), meanwhile=check_connections)
    assert type(error) is kind
    assert error.retryable is retryable
    assert len(upstream.calls) == 1  # the wire itself never asks again, and follows no redirect


@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_a_stream_cut_midway_keeps_what_came_and_is_not_retryable(upstream: Upstream, cut: Any) -> None:
    upstream.script(Reply("one two three", cut_after_chunks=2, cut=cut))
    texts: list[str] = []

    async def run() -> None:
        answer = await OpenAIWire(provider(upstream), "m").start(request_of())
        async for text in answer:
            texts.append(text)

    with pytest.raises(UpstreamFailed):
        asyncio.run(run())
    assert "".join(texts) in ("one", "one two")
    assert "one two".startswith("".join(texts))


def test_a_stream_cut_after_its_finish_reason_is_complete(upstream: Upstream) -> None:
    upstream.script(Reply("all of it", usage=None, done_marker=False))
    [(text, _)] = ask(provider(upstream))
    assert text == "all of it"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_usage_that_came_while_the_process_had_no_core_is_read(
    upstream: Upstream, new_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.providers.wire._LINGER_S", 1.0)
    gate = Gate()
    upstream.script(Reply("all of it", usage=(5, 3), usage_gate=gate))

    async def lose_the_core_when_finished(answer: Any) -> None:
        while not answer._reader.finished:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
        gate.open()
        upstream.wait_until(lambda calls: calls[0].finished_at is not None, "end")  # it has sent its usage; we do not look
        time.sleep(1.1)  # noqa: ASYNC251 - on purpose

    async def run() -> Usage | None:
        answer = await OpenAIWire(provider(upstream), "m").start(request_of())
        losing = asyncio.create_task(lose_the_core_when_finished(answer))
        assert "".join([text async for text in answer]) == "all of it"
        await losing
        await _transport().aclose()
        return answer.usage

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(run()) == Usage(5, 3)


def test_a_usage_that_does_not_come_is_not_waited_for_long(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.providers.wire._LINGER_S", 0.1)
    upstream.script(Reply("all of it", usage_gate=Gate()))
    [(text, answer)] = ask(provider(upstream))
    assert (text, answer.finish_reason, answer.usage) == ("all of it", "stop", None)
    upstream.wait_for_disconnect()


def test_silence_between_tokens_and_the_total_time_end_a_stream(upstream: Upstream) -> None:
    upstream.script(Reply("a b c", delay_between_s=300), Reply(chunks=["x"] * 5, never_ends=True, delay_between_s=0.05))
    silent = provider(upstream, between_tokens_timeout_s=0.2)
    endless = provider(upstream, total_timeout_s=8)
    started = time.monotonic()
    first, second = ask(silent, endless)
    assert isinstance(first, UpstreamTimedOut)
    assert "silent" in first.reason
    assert isinstance(second, UpstreamTimedOut)
    assert "too long" in second.reason
    assert time.monotonic() - started < 30
    upstream.wait_for_disconnect(2)


def test_cancelling_hangs_up_on_the_model(upstream: Upstream) -> None:
    upstream.script(Reply("a b", delay_between_s=30), Silence())

    async def run() -> None:
        for number in (1, 2):
            task = asyncio.create_task(ask_one(provider(upstream)))
            await asyncio.to_thread(upstream.wait_for_calls, number)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.to_thread(upstream.wait_for_disconnect, 2)
        await _transport().aclose()

    asyncio.run(run())


def test_a_full_listen_queue_is_a_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        started = time.monotonic()
        [error] = ask(provider(f"http://127.0.0.1:{port}/v1", connect_timeout_s=0.3))
        assert isinstance(error, UpstreamTimedOut)
        assert error.retryable
        assert time.monotonic() - started < 20
        for filler in fillers:
            filler.close()


def test_nobody_listening_is_retryable_and_a_private_address_is_not(settings: Settings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        [error] = ask(provider(f"http://127.0.0.1:{unused.getsockname()[1]}/v1"))
    assert error.retryable
    settings.OUTBOUND_ALLOWED_HOSTS = []
    for host in ("127.0.0.1", "localhost", "2130706433", "169.254.169.254", "[::1]"):
        [error] = ask(provider(f"http://{host}:9/v1"))
        assert not error.retryable, host
        assert "OUTBOUND_ALLOWED_HOSTS" in error.reason


def test_retry_after_is_read_in_seconds_and_as_a_date(upstream: Upstream) -> None:
    date = formatdate(time.time() + 100, usegmt=True)
    headers = [{"Retry-After": text} for text in ("2.5", date, "-3", "soon", "nan")]
    upstream.script(*(Refusal(429, headers=each) for each in headers), Refusal(429))
    waits = [error.wait_s for error in ask(*[provider(upstream)] * 6)]
    assert waits[0] == 2.5
    assert 60 < waits[1] <= 100
    assert waits[2:] == [0, None, 0, None]


def test_what_is_sent(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIRE_API_KEY", "sk-wire")
    ask(provider(upstream, key_variable="WIRE_API_KEY"), temperature=0.5, top_p=0.9)
    call = upstream.calls[0]
    assert call.body == {
        "model": "test-model",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert call.headers["authorization"] == "Bearer sk-wire"
    ask(provider(upstream), stream=False)
    assert {"temperature", "top_p", "stream"}.isdisjoint(json.loads(upstream.calls[1].raw_body))


def test_a_hundred_aborted_streams_leave_no_connection(upstream: Upstream) -> None:
    upstream.script(Reply("a b", delay_between_s=30))

    async def run() -> None:
        tasks = [asyncio.create_task(ask_one(provider(upstream))) for _ in range(100)]
        await asyncio.to_thread(upstream.wait_for_calls, 100)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(eventually, lambda: connections_to(upstream) == 0, what="every connection closed")

    asyncio.run(run())


def test_the_account_in_the_environment_is_told_to_no_provider(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-ours")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-ours")
    ask(provider(upstream))
    assert not [name for name in upstream.calls[0].headers if name.lower().startswith("openai-")]


@pytest.mark.parametrize("padding", ["", "x" * 570], ids=["plain", "cut within the key"])
def test_a_key_that_the_provider_repeats_is_not_in_the_reason(upstream: Upstream, padding: str) -> None:
    key = "sk-canary-0123456789abcdef"
    repeated = f"{padding}Incorrect API key provided: {key}"
    upstream.script(
        Refusal(401, message=repeated),
        Reply(chunks=[""], error_after_chunks=1, error={"message": repeated}),
        Reply(chunks=["a", "b"], error_after_chunks=1, error={"message": repeated}),
    )
    asked = provider(upstream, encrypted_key=seal(key))
    for error in ask(asked, asked, asked):
        assert isinstance(error, UpstreamFailed)
        assert "canary" not in error.reason
        assert upstream.calls[0].headers["authorization"] == f"Bearer {key}"
