"""What all parties agree on: the text of every reply, and how it travels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, Literal

CHUNKS: Final = 50
PARTS: Final = [f"w{number} " for number in range(CHUNKS)]
TEXT: Final = "".join(PARTS)
FIRST_TEXT: Final = PARTS[0].strip().encode()

Shape = Literal["chat", "openai"]
"""`chat`: this server's POST /api/chat/{agent}. `openai`: POST {base_url}/chat/completions."""


def completion() -> bytes:
    """Return the upstream's JSON answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    return json.dumps({**_head("chat.completion"), "choices": [choice], "usage": _usage()}).encode()


def events() -> list[bytes]:
    """Return the upstream's stream: role, `CHUNKS` texts, end, usage, [DONE]."""
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": part}, None) for part in PARTS]
    deltas.append(({}, "stop"))
    head = _head("chat.completion.chunk")
    documents = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for delta, reason in deltas]
    documents.append({**head, "choices": [], "usage": _usage()})
    return [b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents] + [b"data: [DONE]\n\n"]


def request_body(*, shape: Shape, number: int, stream: bool, model: str, session: str, message: str = "") -> bytes:
    """Return the body of request `number`; each has a session of its own, and its own message unless `message` is for all."""
    message = message or f"Hello, this is message {number} of {session}."
    document: dict[str, Any]
    if shape == "chat":
        document = {"message": message, "session_id": f"{session}-{number}", "stream": stream}
    else:
        document = {"model": model, "messages": [{"role": "user", "content": message}], "stream": stream}
    return json.dumps(document).encode()


def text_of(body: bytes, *, shape: Shape, stream: bool) -> str:
    """Return the reply's text in an answer of `shape`.

    Raises:
        ValueError, LookupError, TypeError: the answer is not of that shape, or is not complete.
    """
    if not stream:
        document = json.loads(body)
        return str(document["reply"] if shape == "chat" else document["choices"][0]["message"]["content"])
    if shape == "chat":
        found = list(_events_of(body))
        if not found or found[-1][0] != "done":
            raise ValueError("the stream has no event 'done'")
        return "".join(json.loads(data)["text"] for name, data in found if name == "delta")
    data_lines = [data for _, data in _events_of(body)]
    if not data_lines or data_lines[-1] != b"[DONE]":
        raise ValueError("the stream has no [DONE]")
    choices = [choice for data in data_lines[:-1] for choice in json.loads(data).get("choices") or []]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _events_of(body: bytes) -> Iterator[tuple[str, bytes]]:
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        name, data = "message", None
        for line in event.split(b"\n"):
            field, _, value = line.partition(b": ")
            if field == b"event":
                name = value.decode()
            elif field == b"data":
                data = value
        if data is not None:
            yield name, data


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-bench", "object": kind, "created": 1_700_000_000, "model": "bench"}


def _usage() -> dict[str, int]:
    return {"prompt_tokens": 20, "completion_tokens": CHUNKS, "total_tokens": 20 + CHUNKS}
