"""What the upstream can be told to do with a call."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


class Gate:
    """Holds an answer until the test opens it: order without sleeping."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        """Let every answer that waits, or will wait, go on."""
        with self._lock:
            self._is_open = True
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)

    async def passed(self) -> None:
        with self._lock:
            if self._is_open:
                return
            event = asyncio.Event()
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()


@dataclass(frozen=True)
class Reply:
    """A completion. `text` is cut into words for a stream unless `chunks` says how.

    Numbers of chunks count text chunks from 1: `cut_after_chunks=3` sends three and breaks.
    """

    text: str = "Hello from the upstream."
    chunks: Sequence[str] | None = None
    echo: int = 0
    """Answers with this many chunks made of the newest message instead, so that answers to different callers differ."""
    finish_reason: str | None = "stop"
    model: str | None = None
    """The model's name in the answer; None: the one asked for."""
    usage: tuple[int, int] | None = (11, 7)
    """Prompt and completion tokens; None: the upstream reports none."""

    delay_before_headers_s: float = 0
    delay_before_first_s: float = 0
    delay_between_s: float = 0
    gate: Gate | None = None
    """Waits for this gate before the chunk `gate_before_chunk` (a JSON answer waits before its headers)."""
    gate_before_chunk: int = 1
    usage_gate: Gate | None = None
    """Waits for this gate between a stream's finish reason and its usage."""

    cut_after_chunks: int | None = None
    cut_after_bytes: int | None = None
    """Bytes of the body, also of a JSON answer."""
    cut: Literal["fin", "rst"] = "fin"
    never_ends: bool = False
    """Repeats the chunks for ever; a JSON answer never comes."""

    split_every_byte: bool = False
    all_in_one_packet: bool = False
    comments: bool = False
    """A line ': processing' before every event."""
    crlf: bool = False
    garbage_after_chunks: int | None = None
    """Sends bytes that are no UTF-8 and no SSE, then goes on."""
    invalid_json_after_chunks: int | None = None
    error_after_chunks: int | None = None
    """An `error` object in the stream, which then ends."""
    error: dict[str, Any] = field(default_factory=lambda: {"message": "The engine is overloaded.", "type": "server_error", "code": None})
    empty_choices: bool = False
    """No choices at all: [] in JSON, chunks without choices in a stream."""
    done_marker: bool = True
    gzip: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def parts_for(self, message: str) -> list[str]:
        """Return the pieces of the answer to `message`, as they are streamed."""
        if self.echo:
            return [f"{message} {number}; " for number in range(1, self.echo + 1)]
        if self.chunks is not None:
            return list(self.chunks)
        words = self.text.split(" ")
        return [word if index == 0 else f" {word}" for index, word in enumerate(words)]

    def text_for(self, message: str) -> str:
        """Return the whole answer to `message`."""
        return "".join(self.parts_for(message))


@dataclass(frozen=True)
class Refusal:
    """An error status with an OpenAI error body (or `body`, verbatim)."""

    status: int = 500
    message: str = "The server had an error while processing your request."
    type: str = "server_error"
    code: str | None = None
    retry_after_s: float | None = None
    body: bytes | None = None
    delay_before_headers_s: float = 0
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps({"error": {"message": self.message, "type": self.type, "param": None, "code": self.code}}).encode()


@dataclass(frozen=True)
class Silence:
    """Reads the request and then says nothing for ever; `after_headers`: sends the headers of a stream first."""

    after_headers: bool = False


@dataclass(frozen=True)
class Redirect:
    """Sends the caller elsewhere."""

    location: str
    status: int = 302


@dataclass(frozen=True)
class RawBytes:
    """Writes `data` straight to the socket, headers and all, and closes; empty: closes at once."""

    data: bytes = b""
    cut: Literal["fin", "rst"] = "fin"


Behaviour = Reply | Refusal | Silence | Redirect | RawBytes
