"""The model that costs nothing: an OpenAI-compatible API that answers every call from prebuilt bytes.

`python -m benchmarks.chat.upstream PORT`. `POST /control` with {"delay_ms", "chunk_ms"} says how long it waits before an
answer and between a stream's chunks (0: the whole stream in one write), and is answered with {"calls"}:
how many there were. It takes several ten thousand calls a second.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final, cast

import uvloop

from . import wire

_JSON_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_COMPLETION: Final = wire.completion()
_CHUNKS: Final = [b"%x\r\n%b\r\n" % (len(event), event) for event in wire.events()] + [b"0\r\n\r\n"]
_WHOLE_JSON: Final = _JSON_HEAD % len(_COMPLETION) + _COMPLETION
_WHOLE_STREAM: Final = _STREAM_HEAD + b"".join(_CHUNKS)


class Pace:
    """How slow the upstream is just now; the same for all callers."""

    delay_s: float = 0
    chunk_s: float = 0


class Seen:
    """What was asked of the upstream since it started."""

    calls: int = 0


class Upstream(asyncio.Protocol):
    """One connection; requests come one after another."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length_at = head.find(b"content-length:")
            length = int(head[length_at + 15 :].split(b"\r\n", 1)[0]) if length_at >= 0 else 0
            total = end + 4 + length
            if len(self._buffer) < total:
                return
            body, self._buffer = self._buffer[end + 4 : total], self._buffer[total:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"post /control"):
            order = json.loads(body)
            if order:
                Pace.delay_s, Pace.chunk_s = order["delay_ms"] / 1000, order["chunk_ms"] / 1000
            seen = json.dumps({"calls": Seen.calls}).encode()
            self._write(_JSON_HEAD % len(seen) + seen)
            return
        Seen.calls += 1
        streams = b'"stream":true' in body or b'"stream": true' in body
        if streams and Pace.chunk_s:
            self._loop.call_later(Pace.delay_s, self._write, _STREAM_HEAD)
            self._loop.call_later(Pace.delay_s, self._write_chunk, 0, Pace.chunk_s)
            return
        answer = _WHOLE_STREAM if streams else _WHOLE_JSON
        if Pace.delay_s:
            self._loop.call_later(Pace.delay_s, self._write, answer)
        else:
            self._write(answer)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _write_chunk(self, index: int, every_s: float) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_CHUNKS[index])
        if index + 1 < len(_CHUNKS):
            self._loop.call_later(every_s, self._write_chunk, index + 1, every_s)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
