"""The HTTP server under the scripts: one thread, one event loop, full control over every byte and over the socket's end."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import struct
import threading
import zlib
from contextlib import suppress
from typing import Any

from . import wire
from .behaviours import Behaviour, RawBytes, Redirect, Refusal, Reply, Silence
from .log import Call, Upstream

MAX_BODY_BYTES = 50_000_000
REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests", 500: "Oops"}


class _Cut(Exception):
    """The script says that the connection breaks here."""


class UpstreamServer:
    """Listens on a free loopback port, in a thread of its own, until `stop`."""

    def __init__(self) -> None:
        self._upstreams: dict[str, Upstream] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="upstream", daemon=True)
        self._thread.start()

    def open(self) -> Upstream:
        """Return an upstream with a base URL that nobody else uses."""
        token = secrets.token_hex(6)
        self._upstreams[token] = Upstream(f"http://127.0.0.1:{self.port}/{token}/v1")
        return self._upstreams[token]

    def close(self, upstream: Upstream) -> None:
        """Forget an upstream; its base URL answers 404 from now on."""
        self._upstreams.pop(upstream.base_url.split("/")[3], None)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
        self._loop.close()

    def _serve(self) -> None:
        self._loop.run_until_complete(self._main())

    async def _main(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=self._listener, limit=MAX_BODY_BYTES)
        await self._stopping.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        ahead: bytes | None = b""
        try:
            while ahead is not None:
                ahead = await self._answer_one(reader, writer, ahead=ahead)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ahead: bytes) -> bytes | None:
        """Read a request and play its behaviour; return what was read of the next one, or None where the connection ends."""
        head = (ahead + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        raw_body = await reader.readexactly(int(headers.get("content-length", "0")))
        _, token, _, *rest = [*path.split("/"), "", ""]
        upstream = self._upstreams.get(token)
        route = "/".join(rest).strip("/")
        if upstream is None or (method, route) not in {("POST", "chat/completions"), ("GET", "models")}:
            await _write(writer, _whole(404, Refusal(404, "Not found.", "invalid_request_error").encoded()))
            return b""
        if route == "models":
            await _write(writer, _whole(200, wire.models(upstream.models)))
            return b""
        call, behaviour = upstream.begin(method=method, path=path, headers=headers, raw_body=raw_body, body=_decoded(raw_body))
        return await self._play(upstream, call, behaviour, reader=reader, writer=writer)

    async def _play(
        self, upstream: Upstream, call: Call, behaviour: Behaviour, *, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        """Play `behaviour` while watching for the client's leaving: it sends nothing before the answer is complete."""
        playing = asyncio.create_task(_perform(upstream, call, behaviour, writer))
        watching = asyncio.create_task(_next_byte(reader))
        try:
            await asyncio.wait({playing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not playing.done() and not watching.result():
                playing.cancel()
                with suppress(asyncio.CancelledError, ConnectionError, _Cut):
                    await playing
                upstream.end(call, disconnected=True)
                return None
            try:
                await playing
            except _Cut as cut:
                _break(writer, how=str(cut))
                upstream.end(call, disconnected=False)
                return None
            except ConnectionError:
                upstream.end(call, disconnected=True)
                return None
            upstream.end(call, disconnected=False)
        finally:
            for task in (playing, watching):
                task.cancel()
            await asyncio.gather(playing, watching, return_exceptions=True)
        return b"" if watching.cancelled() else watching.result() or None


async def _next_byte(reader: asyncio.StreamReader) -> bytes:
    """Return the first byte of another request, or nothing when the client closed or reset the connection."""
    try:
        return await reader.read(1)
    except ConnectionError:
        return b""


async def _perform(upstream: Upstream, call: Call, behaviour: Behaviour, writer: asyncio.StreamWriter) -> None:
    match behaviour:
        case Reply() if call.is_stream:
            await _stream(upstream, call, behaviour, writer)
        case Reply():
            await _answer(call, behaviour, writer)
        case Refusal():
            await asyncio.sleep(behaviour.delay_before_headers_s)
            headers = dict(behaviour.headers)
            if behaviour.retry_after_s is not None:
                headers["Retry-After"] = f"{behaviour.retry_after_s:g}"
            await _write(writer, _whole(behaviour.status, behaviour.encoded(), headers))
        case Redirect():
            await _write(writer, _whole(behaviour.status, b"", {"Location": behaviour.location}))
        case RawBytes():
            await _write(writer, behaviour.data)
            raise _Cut(behaviour.cut)
        case Silence():
            if behaviour.after_headers:
                await _write(writer, _head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}))
            await asyncio.Event().wait()


async def _answer(call: Call, reply: Reply, writer: asyncio.StreamWriter) -> None:
    if reply.gate:
        await reply.gate.passed()
    await asyncio.sleep(reply.delay_before_headers_s + reply.delay_before_first_s)
    if reply.never_ends:
        await asyncio.Event().wait()
    body, headers = wire.completion(reply, call), dict(reply.headers)
    if reply.gzip:
        body = zlib.compress(body, wbits=31)
        headers["Content-Encoding"] = "gzip"
    whole = _whole(200, body, headers)
    if reply.cut_after_bytes is not None:
        await _write(writer, whole[: len(whole) - len(body) + reply.cut_after_bytes])
        raise _Cut(reply.cut)
    for piece in _pieces(whole, reply):
        await _write(writer, piece)


async def _stream(upstream: Upstream, call: Call, reply: Reply, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(reply.delay_before_headers_s)
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked", **reply.headers}
    compressor = zlib.compressobj(wbits=31) if reply.gzip else None
    if compressor:
        headers["Content-Encoding"] = "gzip"
    await _write(writer, _head(200, headers))
    await asyncio.sleep(reply.delay_before_first_s)
    body_bytes, chunks, packet = 0, 0, b""
    for event, carries_text in wire.events(reply, call):
        if carries_text:
            if reply.gate and chunks + 1 == reply.gate_before_chunk:
                await reply.gate.passed()
            await asyncio.sleep(reply.delay_between_s if chunks else 0)
        if reply.usage_gate and b'"usage": ' in event:
            await reply.usage_gate.passed()
        if event.endswith(wire.DONE):
            upstream.end(call, disconnected=False)  # a client may rightly leave once it has read this
        data = compressor.compress(event) + compressor.flush(zlib.Z_SYNC_FLUSH) if compressor else event
        if reply.cut_after_bytes is not None and body_bytes + len(data) > reply.cut_after_bytes:
            await _write(writer, _chunk(data[: reply.cut_after_bytes - body_bytes]))
            raise _Cut(reply.cut)
        body_bytes += len(data)
        if reply.all_in_one_packet:
            packet += _chunk(data)
        else:
            for piece in _pieces(data, reply):
                await _write(writer, _chunk(piece))
        if carries_text:
            chunks += 1
            upstream.sent(call)
            if chunks == reply.cut_after_chunks:
                await _write(writer, packet)
                raise _Cut(reply.cut)
    await _write(writer, packet + (_chunk(compressor.flush()) if compressor else b"") + b"0\r\n\r\n")


def _pieces(data: bytes, reply: Reply) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))] if reply.split_every_byte else [data]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _whole(status: int, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    return _head(status, {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}) + body


def _decoded(raw_body: bytes) -> Any:
    try:
        return json.loads(raw_body)
    except ValueError:
        return None


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def _break(writer: asyncio.StreamWriter, *, how: str) -> None:
    if how == "rst":
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
