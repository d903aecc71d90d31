"""The Procfile's processes, started as a platform does it: they serve, and a rolling restart under load loses no request."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx2
import psycopg
import pytest

from tests.hosting.platform import HEADERS, Balancer, Platform, Started
from tests.sse import read_events, text_of
from tests.upstream import Reply
from tests.waiting import eventually

ANSWER = "one two three four five six seven eight nine ten"
PATH = "/api/chat/hosted"


@pytest.fixture
def hosted(host, upstream) -> Platform:
    """A platform with one agent that takes half a second to stream an answer."""
    upstream.script(Reply(ANSWER, delay_between_s=0.05))
    return host(WEB_CONCURRENCY="2")


class Load:
    """Callers that ask without a pause until they are told to stop; `failed` says what went wrong."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = asyncio.Event()
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []

    async def __aenter__(self) -> Load:
        kinds = [(stream, keeps_open) for stream in (False, True) for keeps_open in (False, True)]
        self._tasks = [asyncio.create_task(self._call(stream=stream, keeps_open=keeps_open)) for stream, keeps_open in 3 * kinds]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _call(self, *, stream: bool, keeps_open: bool) -> None:
        # Some proxies open a connection for each request, others keep theirs.
        limits = httpx2.Limits(max_keepalive_connections=1 if keeps_open else 0)
        url = f"http://127.0.0.1:{self._port}"
        async with httpx2.AsyncClient(base_url=url, headers=HEADERS, limits=limits, timeout=120, trust_env=False) as client:
            while not self._stopping.is_set() and not self.failed:
                kind = "stream" if stream else "JSON"
                try:
                    response = await client.post(PATH, json={"message": "Hello", "stream": stream})
                    reply = _reply(response, stream=stream)
                except Exception as error:
                    self.failed.append(f"{kind}, connection kept open {keeps_open}: {error!r}")
                else:
                    self.answered[kind] += 1
                    if reply != ANSWER:
                        self.failed.append(f"{kind}: {reply!r}")


def _reply(response: httpx2.Response, *, stream: bool) -> str:
    assert response.status_code == 200, f"{response.status_code}: {response.text}"
    if not stream:
        return str(response.json()["reply"])
    events = read_events(response.text)
    assert events[-1].name == "done", events[-1]
    return text_of(events)


def test_a_rolling_restart_under_load_fails_no_request(hosted: Platform) -> None:
    async def drive() -> Load:
        old = [hosted.start_web(), hosted.start_web()]
        async with Balancer(old) as balancer, Load(balancer.port) as load:
            await _answers(load, 20)
            for replaced in old:
                fresh = await asyncio.to_thread(hosted.start_web)
                balancer.targets = [fresh if target is replaced else target for target in balancer.targets]
                replaced.terminate()
                await asyncio.to_thread(_ended, replaced)
                await _answers(load, load.answered.total() + 20)
        return load

    load = asyncio.run(drive())
    print(dict(load.answered))
    assert load.failed == [], hosted.logs()[-6000:]
    assert min(load.answered["JSON"], load.answered["stream"]) > 20
    with psycopg.connect(hosted.environment["DATABASE_URL"]) as database:
        stored = database.execute("SELECT state, count(*) FROM memory_turn GROUP BY state").fetchall()
    assert stored == [("done", load.answered.total())]


def test_the_worker_remembers_and_stops_when_asked(hosted: Platform) -> None:
    web, worker = hosted.start_web(), hosted.start("worker")
    with httpx2.Client(base_url=f"http://127.0.0.1:{web.port}", headers=HEADERS, timeout=120, trust_env=False) as client:
        assert client.post(PATH, json={"message": "My parrot is called Pico.", "sessionId": "s"}).json()["reply"] == ANSWER

    def remembered() -> bool:
        with psycopg.connect(hosted.environment["DATABASE_URL"]) as database:
            [count] = database.execute("SELECT count(*) FROM memory_turn WHERE remembered_at IS NOT NULL").fetchone() or [0]
            return bool(count == 1)

    eventually(remembered, what="the worker remembers the turn", timeout_s=90)
    for process in (worker, web):
        process.terminate()
        _ended(process)


def test_production_as_hosted_is_ready_to_be_deployed(hosted: Platform, manage) -> None:
    done = manage(hosted.environment, "check", "--deploy", "--database", "default", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr


def _ended(started: Started) -> None:
    assert started.process.wait(30) == 0, started.log.read_text()[-4000:]


async def _answers(load: Load, count: int) -> None:
    async with asyncio.timeout(180):
        while load.answered.total() < count and not load.failed:  # noqa: ASYNC110 - its callers count
            await asyncio.sleep(0.05)
