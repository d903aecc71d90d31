"""The benchmark's load must notice every reply that is not right: otherwise its figures prove nothing."""

import asyncio

import pytest

from benchmarks.chat import wire
from benchmarks.chat.load import Job, drive, percentile
from benchmarks.chat.report import Report
from tests.upstream import Refusal, Reply

WHOLE = Reply(chunks=wire.PARTS)


def job(upstream, **fields):
    host, _, port = upstream.netloc.partition(":")
    path = upstream.base_url.removeprefix(f"http://{upstream.netloc}") + "/chat/completions"
    given = {"shape": "openai", "model": "m", "session": "s", "stream": False, "concurrency": 2, "seconds": 5, "max_requests": 6, **fields}
    return Job(host=host, port=int(port), path=path, **given)


@pytest.mark.parametrize("stream", [False, True])
def test_right_replies_are_counted_and_timed(upstream, stream):
    upstream.script(WHOLE)
    result = asyncio.run(drive(job(upstream, stream=stream)))
    assert (result.replies, result.errors) == (6, {})
    assert 0 < result.first_p50_ms <= result.p50_ms <= result.p99_ms
    assert len({call.newest_message for call in upstream.calls}) == 6


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Reply(text=wire.TEXT + "!"), "wrong text"),
        (Refusal(500), "status 500"),
        (Reply(chunks=wire.PARTS, cut_after_bytes=100), "connection lost"),
    ],
    ids=["text", "status", "cut"],
)
def test_wrong_replies_are_errors(upstream, stream, behaviour, error):
    upstream.script(behaviour)
    result = asyncio.run(drive(job(upstream, stream=stream)))
    assert (result.replies, result.errors) == (0, {error: 6})


def test_a_stream_without_its_end_is_an_error(upstream):
    upstream.script(Reply(chunks=wire.PARTS, done_marker=False))
    result = asyncio.run(drive(job(upstream, stream=True)))
    assert list(result.errors) == ["unreadable answer: the stream has no [DONE]"]


def test_this_servers_answers_are_read_too():
    delta = "".join(f'event: delta\nid: 1\ndata: {{"text":"{part}"}}\n\n' for part in wire.PARTS)
    whole = delta + 'event: done\nid: 2\ndata: {"reply": "x"}\n\n'
    assert wire.text_of(whole.encode(), shape="chat", stream=True) == wire.TEXT
    assert wire.text_of(b'{"reply": "Hi"}', shape="chat", stream=False) == "Hi"
    with pytest.raises(ValueError, match="done"):
        wire.text_of(delta.encode(), shape="chat", stream=True)


def test_percentiles():
    durations = [number / 1000 for number in range(1, 101)]
    assert (percentile(durations, 50), percentile(durations, 99)) == pytest.approx((51, 100))
    assert percentile([], 50) is None


@pytest.mark.parametrize(
    ("stored", "complaints"), [({"done": 5}, 0), ({"done": 4}, 1), ({"done": 6}, 1), ({"done": 5, "running": 1}, 1), ({}, 1)]
)
def test_replies_and_stored_turns_must_be_equal(stored, complaints):
    report = Report(machine={}, figures=[], footprints=[], acknowledged=5, stored=stored)
    assert len(report.complaints) == complaints
