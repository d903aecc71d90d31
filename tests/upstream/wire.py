"""The bytes of the OpenAI protocol: completions, chunks and events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from .behaviours import Reply
from .log import Call

CREATED = 1_700_000_000
DONE = (b"data: [DONE]\n\n", b"data: [DONE]\r\n\r\n")


def completion(reply: Reply, call: Call) -> bytes:
    """Return the JSON answer to a call without `stream`."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": reply.text_for(call.newest_message)},
        "finish_reason": reply.finish_reason,
    }
    document: dict[str, Any] = {
        "id": f"chatcmpl-{call.number}",
        "object": "chat.completion",
        "created": CREATED,
        "model": reply.model or call.model,
        "choices": [] if reply.empty_choices else [choice],
    }
    if reply.usage:
        document["usage"] = _usage(reply.usage)
    return json.dumps(document).encode()


def events(reply: Reply, call: Call) -> Iterator[tuple[bytes, bool]]:
    """Yield the stream's events and whether each carries text."""
    head = {"id": f"chatcmpl-{call.number}", "object": "chat.completion.chunk", "created": CREATED, "model": reply.model or call.model}

    def event(choices: list[Any], **more: Any) -> bytes:
        return _event(json.dumps({**head, "choices": [] if reply.empty_choices else choices, **more}).encode(), reply)

    yield event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]), False
    parts = reply.parts_for(call.newest_message)
    for number in count(1) if reply.never_ends else range(1, len(parts) + 1):
        part = parts[(number - 1) % len(parts)]
        yield event([{"index": 0, "delta": {"content": part}, "finish_reason": None}]), True
        if number == reply.garbage_after_chunks:
            yield b"\xff\xfe\x00 not an event\n\n", False
        if number == reply.invalid_json_after_chunks:
            yield _event(b'{"choices": [{"delta": {"content": "brok', reply), False
        if number == reply.error_after_chunks:
            yield _event(json.dumps({"error": reply.error}).encode(), reply), False
            return
    yield event([{"index": 0, "delta": {}, "finish_reason": reply.finish_reason}]), False
    if reply.usage and ((call.body or {}).get("stream_options") or {}).get("include_usage"):
        yield _event(json.dumps({**head, "choices": [], "usage": _usage(reply.usage)}).encode(), reply), False
    if reply.done_marker:
        yield _event(b"[DONE]", reply), False


def models(names: list[str]) -> bytes:
    return json.dumps(
        {"object": "list", "data": [{"id": name, "object": "model", "created": CREATED, "owned_by": "tests"} for name in names]}
    ).encode()


def _event(data: bytes, reply: Reply) -> bytes:
    end = b"\r\n" if reply.crlf else b"\n"
    comment = b": processing" + end + end if reply.comments else b""
    return comment + b"data: " + data + end + end


def _usage(usage: tuple[int, int]) -> dict[str, int]:
    prompt, completion = usage
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
