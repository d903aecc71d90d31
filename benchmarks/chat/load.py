"""The load: raw HTTP clients that keep a number of requests under way and check every reply.

`python -m benchmarks.chat.load` reads a job a line on its standard input and prints a result a line. A request is sent as
soon as the one before on its connection is answered, until the time or the count is used up.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

import uvloop

from . import wire

DRAIN_S = 25.0
"""How long requests that are under way at the end may still take."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to send, where, how much at once, and for how long."""

    host: str
    port: int
    path: str
    shape: wire.Shape
    model: str = ""
    key: str = ""
    session: str
    message: str = ""
    """The same for all requests; otherwise each has its own."""
    stream: bool
    concurrency: int
    seconds: float
    max_requests: int
    announce_when_open: bool = False
    """Print a line once every connection has its first text: for measuring while streams are open."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came back. Times in milliseconds; `errors` counts each kind of failure."""

    replies: int
    errors: dict[str, int]
    elapsed_s: float
    p50_ms: float | None
    p99_ms: float | None
    first_p50_ms: float | None
    first_p99_ms: float | None


class Run:
    """The state that a job's connections share."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.errors: Counter[str] = Counter()
        self.finished = asyncio.Event()
        self.opened = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent = 0
        self._open = 0
        self._lively = job.concurrency
        key = f"Authorization: Bearer {job.key}\r\n" if job.key else ""
        accept = "text/event-stream" if job.stream else "application/json"
        self._head = (
            f"POST {job.path} HTTP/1.1\r\nHost: {job.host}:{job.port}\r\nContent-Type: application/json\r\n"
            f"Accept: {accept}\r\n{key}Content-Length: "
        ).encode()
        self.started = time.perf_counter()
        self.ended = self.started

    @property
    def has_sent_enough(self) -> bool:
        return self._sent >= self.job.max_requests or time.perf_counter() - self.started >= self.job.seconds

    def next_request(self) -> bytes | None:
        """Return the next request's bytes, or None when enough were sent."""
        if self.has_sent_enough:
            return None
        self._sent += 1
        body = wire.request_body(
            shape=self.job.shape,
            number=self._sent,
            stream=self.job.stream,
            model=self.job.model,
            session=self.job.session,
            message=self.job.message,
        )
        return self._head + b"%d\r\n\r\n" % len(body) + body

    def has_first_text(self) -> None:
        self._open += 1
        if self._open == self.job.concurrency:
            self.opened.set()

    async def connect(self) -> None:
        """Open a connection, or count the client as done when there is nothing left to send."""
        while not self.has_sent_enough:
            try:
                await asyncio.get_running_loop().create_connection(lambda: Connection(self), self.job.host, self.job.port)
            except OSError:
                self.errors["no connection"] += 1
                await asyncio.sleep(0.05)
            else:
                return
        self._lively -= 1
        self.ended = time.perf_counter()
        if self._lively == 0:
            self.finished.set()

    def connect_again(self) -> None:
        task = asyncio.get_running_loop().create_task(self.connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def unfinished(self) -> int:
        return self._lively


class Connection(asyncio.Protocol):
    """One client: a request at a time, on one connection for as long as the server keeps it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        request = self._run.next_request()
        if request is None:
            self._transport.close()
            return
        self._waits = True
        self._answer = bytearray()
        self._body_at = -1
        self._ends_at = 0
        self._first = 0.0
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self._waits:
            return
        self._answer += data
        if not self._first and wire.FIRST_TEXT in self._answer:
            self._first = time.perf_counter()
            self._run.has_first_text()
        if self._body_at < 0 and (end := self._answer.find(b"\r\n\r\n")) >= 0:
            self._body_at = end + 4
            head = bytes(self._answer[:end]).lower()
            at = head.find(b"\r\ncontent-length:")
            self._ends_at = self._body_at + int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if self._body_at < 0:
            return
        if len(self._answer) >= self._ends_at if self._ends_at else self._answer.endswith(b"\r\n0\r\n\r\n"):
            self._complete()

    def _complete(self) -> None:
        self._waits = False
        now = time.perf_counter()
        fault = self._fault()
        if fault:
            self._run.errors[fault] += 1
        else:
            self._run.latencies.append(now - self._sent_at)
            self._run.firsts.append((self._first or now) - self._sent_at)
        self._send()

    def _fault(self) -> str:
        status = bytes(self._answer[9:12]).decode(errors="replace")
        if status != "200":
            return f"status {status}"
        body = bytes(self._answer[self._body_at :])
        try:
            text = wire.text_of(body if self._ends_at else _dechunked(body), shape=self._run.job.shape, stream=self._run.job.stream)
        except (ValueError, LookupError, TypeError) as error:
            return f"unreadable answer: {error}"[:80]
        return "" if text == wire.TEXT else "wrong text"

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits:
            self._waits = False
            self._run.errors["connection lost"] += 1
        self._run.connect_again()


def _dechunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 4 + size


async def drive(job: Job) -> Result:
    """Do `job` and return what came back."""
    run = Run(job)
    for _ in range(job.concurrency):
        await run.connect()
    if job.announce_when_open:
        await asyncio.wait_for(run.opened.wait(), job.seconds + DRAIN_S)
        print("open", flush=True)
    try:
        await asyncio.wait_for(run.finished.wait(), job.seconds + DRAIN_S)
    except TimeoutError:
        run.errors["unfinished"] += run.unfinished
        run.ended = time.perf_counter()
    return Result(
        replies=len(run.latencies),
        errors=dict(run.errors),
        elapsed_s=run.ended - run.started,
        p50_ms=percentile(run.latencies, 50),
        p99_ms=percentile(run.latencies, 99),
        first_p50_ms=percentile(run.firsts, 50),
        first_p99_ms=percentile(run.firsts, 99),
    )


def percentile(durations_s: Sequence[float], percent: int) -> float | None:
    """Return the `percent`th percentile in milliseconds; None of nothing."""
    if not durations_s:
        return None
    ordered = sorted(durations_s)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


def main() -> None:
    for line in sys.stdin:
        gc.collect()
        gc.disable()
        result = uvloop.run(drive(Job(**json.loads(line))))
        gc.enable()
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
