"""Clients for promises about many connections, and about several worker processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from tests.live_server import LiveServer
from tests.sse import Event, read_events

WORKERS = 3


class RawStream:
    """One POST on a connection of its own, answered by a stream."""

    def __init__(self, port: int, path: str, body: dict[str, Any]) -> None:
        self._port = port
        content = json.dumps(body).encode()
        self._request = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Accept: text/event-stream\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        self.received = b""

    async def send(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._request)

    async def read_until(self, mark: bytes) -> None:
        """Read until `mark` was received.

        Raises:
            AssertionError: the stream ended without it.
        """
        while mark not in self.received:
            data = await self._reader.read(65_536)
            assert data, f"the stream ended before {mark!r}: {self.received[-300:]!r}"
            self.received += data

    async def read_deltas(self, count: int) -> None:
        """Read until `count` pieces of the reply were received."""
        while self.received.count(b"event: delta") < count:
            data = await self._reader.read(65_536)
            assert data, f"the stream ended early: {self.received[-300:]!r}"
            self.received += data

    async def read_all(self) -> list[Event]:
        """Read to the stream's end and return its events."""
        await self.read_until(b"\r\n0\r\n\r\n")
        self._writer.close()
        return read_events(self.text)

    def leave(self, *, abruptly: bool = False) -> None:
        """Close the connection; `abruptly` resets it."""
        if abruptly:
            self._writer.transport.abort()
        else:
            self._writer.close()

    @property
    def reply(self) -> str:
        """The pieces of the reply that were received whole."""
        whole = self.text.rpartition("\n\n")[0] + "\n\n"
        return "".join(event.data["text"] for event in read_events(whole) if event.name == "delta") if len(whole) > 2 else ""

    @property
    def text(self) -> str:
        """The body so far, without HTTP's chunk lines."""
        body, parts = self.received.partition(b"\r\n\r\n")[2], []
        while (line := body.partition(b"\r\n"))[1] and (size := int(line[0], 16)):
            parts.append(line[2][:size])
            body = line[2][size + 2 :]
        return b"".join(parts).decode(errors="replace")


@pytest.fixture
def seeded() -> Callable[[], random.Random]:
    """A random generator whose seed is printed; SEED replays a failure."""

    def seeded() -> random.Random:
        seed = int(os.environ.get("SEED", "0")) or random.randrange(1, 1_000_000)
        print(f"SEED={seed}")
        return random.Random(seed)

    return seeded


@pytest.fixture
def clients(start_server: Callable[..., LiveServer]) -> Iterator[list[httpx2.Client]]:
    """Keep-alive connections, at least one to each of three workers."""
    server = start_server(workers=WORKERS)
    opened: list[httpx2.Client] = []
    while len(opened) < 200 and (len(opened) < 12 or len(_reached(server)) < WORKERS):
        opened.append(server.client())
        opened[-1].get("/health")
    assert len(_reached(server)) == WORKERS
    yield opened
    for client in opened:
        client.close()


def _reached(server: LiveServer) -> set[int]:
    """The workers that hold a connection of ours."""
    return {
        worker.pid
        for worker in server.workers
        if any(found.status == "ESTABLISHED" and found.laddr.port == server.port for found in worker.net_connections("tcp"))
    }
