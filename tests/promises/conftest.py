"""Clients for promises about many connections, and about several worker processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chatbot_site.local import valkey
from observability.api import run_burst
from tests.live_server import LiveServer
from tests.sse import Event, read_events
from tests.waiting import eventually

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

    @property
    def local_port(self) -> int:
        return int(self._writer.get_extra_info("sockname")[1])

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


class Redis:
    """A Redis of this test's own, to be killed, stopped and started."""

    def __init__(self, folder: Path) -> None:
        self._valkey = valkey.Valkey(folder / "valkey", durable=False)
        self._valkey.prepare()
        self.url = self._valkey.url
        self._log = folder / "valkey.log"

    def start(self) -> None:
        self._program = self._valkey.program(log=self._log)
        self._program.start()
        eventually(self._program.ready, what="Redis is ready")

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        assert self._program.process is not None
        self._program.process.wait()

    def hang(self) -> None:
        """Keep its connections open, and answer nothing."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._send(signal.SIGCONT)

    def stop(self) -> None:
        self.go_on()
        self._program.stop()

    def _send(self, number: signal.Signals) -> None:
        if self._program.process is not None and self._program.process.poll() is None:
            self._program.process.send_signal(number)


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    redis = Redis(tmp_path_factory.mktemp("redis"))
    redis.start()
    yield redis
    redis.stop()


@pytest.fixture
def priced(live_db: None) -> Callable[..., None]:
    """Say what the models of an agent cost: a thousand dollars a million tokens, unless told otherwise."""
    from datetime import UTC, datetime

    from observability.models import ModelPrice

    def priced(agent: Any, *, usd: str = "1000", models: tuple[str, ...] = ("test-model",)) -> None:
        version, since = agent.live_version, datetime(2026, 1, 1, tzinfo=UTC)
        providers = {version.provider.slug, *(choice.provider.slug for choice in version.fallbacks.all())}
        for provider in providers:
            for model in models:
                ModelPrice.objects.create(
                    provider=provider, model=model, effective_from=since, input_usd=Decimal(usd), output_usd=Decimal(usd)
                )

    return priced


async def in_time(ask: Callable[[], Any], *, what: str, timeout_s: float = 30.0) -> None:
    """Return once `ask`, which reads the database, answers what is true.

    Raises:
        AssertionError: it did not in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while not await run_burst(lambda: bool(ask())):  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what}") from None


def worker_of(server: LiveServer, stream: RawStream) -> Any:
    """Return the worker process that holds the server's end of a connection."""
    port = stream.local_port
    return next(
        worker
        for worker in server.workers
        if any(found.raddr and found.raddr.port == port and found.laddr.port == server.port for found in worker.net_connections("tcp"))
    )


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
