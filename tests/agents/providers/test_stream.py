"""Reading a provider's answer: however the network cut it up, and whatever is in it."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.providers.base import UpstreamFailed, Usage
from agents.providers.stream import MAX_LINE_BYTES, CompletionReader


def chunk(text: str | None = None, *, finish_reason: str | None = None, usage: tuple[int, int] | None = None) -> bytes:
    document: dict[str, object] = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]}
    if usage:
        document = {"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
    return b"data: " + json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass")


def stream_of(texts: list[str], *, end: bytes = b"\n", comment: bytes = b"") -> bytes:
    events = [*(chunk(text) for text in texts), chunk(finish_reason="stop"), chunk(usage=(3, 2)), b"data: [DONE]"]
    return b"".join(comment + event + end + end for event in events)


def read(pieces: list[bytes]) -> tuple[str, CompletionReader]:
    reader = CompletionReader()
    return "".join(reader.feed(piece) for piece in pieces), reader


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), max_size=8)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("comment", [b"", b": processing\n\n", b"event: message\nretry: 100\n"])
def test_a_stream_cut_in_two_at_any_byte_reads_the_same(end: bytes, comment: bytes) -> None:
    whole = stream_of(["Grüße ", "👋🏽", "\n\ndata: not an event\n"], end=end, comment=comment)
    for cut in range(len(whole) + 1):
        text, reader = read([whole[:cut], whole[cut:]])
        assert (text, reader.finish_reason, reader.usage, reader.finished) == (
            "Grüße 👋🏽\n\ndata: not an event\n",
            "stop",
            Usage(3, 2),
            True,
        ), cut


def test_a_stream_that_comes_byte_by_byte_reads_the_same() -> None:
    whole = stream_of(["one ", "two"])
    text, reader = read([whole[index : index + 1] for index in range(len(whole))])
    assert text == "one two"
    assert reader.usage == Usage(3, 2)


@given(texts=TEXTS, cuts=st.lists(st.integers(0, 2000), max_size=20), end=st.sampled_from([b"\n", b"\r\n"]))
def test_any_texts_in_any_packets_arrive_whole(texts: list[str], cuts: list[int], end: bytes) -> None:
    whole = stream_of(texts, end=end)
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    text, reader = read([whole[start:stop] for start, stop in pairwise(places)])
    assert text == "".join(texts)
    assert reader.finished


@given(st.lists(st.binary(max_size=200), max_size=10))
@example([b'data: {"choices": [{"delta": {"content": "\\ud800"}}]}\n'])
@example([b"data: " + b"[" * 100_000 + b"\n"])
@example([b"data: 1e999\ndata: null\n"])
def test_garbage_raises_nothing_but_upstream_failed(pieces: list[bytes]) -> None:
    reader = CompletionReader()
    for piece in pieces:
        try:
            text = reader.feed(piece)
        except UpstreamFailed:
            return
        text.encode()


FIELDS = st.sampled_from(
    ["choices", "delta", "message", "content", "index", "finish_reason", "usage", "prompt_tokens", "completion_tokens", "error"]
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner)))
def test_any_json_raises_nothing_but_upstream_failed(document: object) -> None:
    for read_it in (CompletionReader().read_json, lambda body: CompletionReader().feed(b"data: " + body + b"\n")):
        try:
            text = read_it(json.dumps(document).encode())
        except UpstreamFailed:
            continue
        assert "\x00" not in text


def test_text_before_a_broken_chunk_is_kept_and_the_error_follows() -> None:
    reader = CompletionReader()
    assert reader.feed(chunk("what came") + b"\n\ndata: {broken\n\n" + chunk("what did not")) == "what came"
    with pytest.raises(UpstreamFailed):
        reader.check()
    with pytest.raises(UpstreamFailed):
        reader.feed(b"")


def test_an_error_in_the_stream_fails_with_its_words_for_the_operator_only() -> None:
    with pytest.raises(UpstreamFailed) as caught:
        CompletionReader().feed(b'data: {"error": {"message": "engine sk-canary on fire"}}\n\n')
    assert "on fire" in caught.value.reason
    assert "on fire" not in json.dumps(caught.value.document("id"))


def test_what_postgresql_cannot_hold_is_replaced_or_cut() -> None:
    reader = CompletionReader()
    assert reader.feed(chunk("a\x00b") + b"\n") == "a\ufffdb"
    reader.feed(chunk(finish_reason="odd\x00" * 30) + b"\n")
    assert "\x00" not in reader.finish_reason
    assert len(reader.finish_reason) <= 40
    reader.feed(chunk(usage=(10**15, -5)) + b"\n")
    assert reader.usage == Usage(2**31 - 1, 0)


def test_only_the_first_choice_is_read() -> None:
    choices = [{"index": index, "delta": {"content": f"choice {index}"}} for index in (1, 0)]
    assert CompletionReader().feed(b"data: " + json.dumps({"choices": choices}).encode() + b"\n") == "choice 0"


def test_a_line_without_an_end_is_given_up() -> None:
    reader = CompletionReader()
    for _ in range(MAX_LINE_BYTES // 50_000):
        reader.feed(b"x" * 50_000)
    with pytest.raises(UpstreamFailed) as caught:
        reader.feed(b"x")
    assert not caught.value.retryable


def test_a_whole_completion_is_read_with_reason_and_usage() -> None:
    reader = CompletionReader()
    body = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "length"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    assert reader.read_json(json.dumps(body).encode()) == "Hi"
    assert (reader.finish_reason, reader.usage, reader.finished) == ("length", Usage(1, 1), True)
