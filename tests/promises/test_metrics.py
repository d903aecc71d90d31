"""Counters are right however workers end: a real Prometheus watches three of them under load while some are killed."""

import asyncio
import itertools
import signal
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx2
import pytest
from django.db import transaction

from memory.models import Turn
from observability.models import Attempt, AttemptOutcome
from observability.orphans import settle_orphans
from tests.prometheus import Prometheus
from tests.upstream import Gate, Reply
from tests.waiting import eventually

WORKERS = 3
CLIENTS = 12
KILLS = 3
TURNS_BETWEEN = 40
SCRAPES_BETWEEN = 2
# In one packet: how long a usage is waited for after the finish reason is another test's matter.
REPLY = Reply(delay_before_first_s=0.02, all_in_one_packet=True)
# Every counter, and of every histogram what only grows.
ALL_COUNTERS = '{__name__=~"chatbot_.+_(total|count|sum|bucket)"}'


class Load:
    """Clients that ask one question after the other, each only once, and what became of the questions."""

    def __init__(self, server, agent):
        self.server = server
        self.path = f"/api/chat/{agent.slug}"
        self.answered: set[str] = set()
        self.unanswered: set[str] = set()
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def running(self):
        self._is_over = False
        async with self.server.async_client() as client, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._ask(client, stream=number % 2 == 0))
            try:
                yield
            finally:
                self._is_over = True

    async def _ask(self, client, *, stream):
        while not self._is_over:
            message = f"message {next(self._numbers)}"
            try:
                response = await client.post(self.path, json={"message": message, "stream": stream})
                is_whole = response.status_code == 200 and (not stream or "event: done" in response.text)
            except httpx2.TransportError:  # its worker was killed
                is_whole = False
            (self.answered if is_whole else self.unanswered).add(message)

    async def until_watched(self, prometheus):
        """Wait for more answers, and for Prometheus to see them come."""
        answers, scrapes = len(self.answered) + TURNS_BETWEEN, await asyncio.to_thread(prometheus.scrapes) + SCRAPES_BETWEEN
        async with asyncio.timeout(60):
            while len(self.answered) < answers or await asyncio.to_thread(prometheus.scrapes) < scrapes:  # noqa: ASYNC110 - others do it
                await asyncio.sleep(0.1)


async def kill_one(server, upstream, *, all_are_at_the_upstream):
    """Kill a worker, and wait until another one has taken its place."""
    gate = Gate()
    if all_are_at_the_upstream:
        upstream.script(replace(REPLY, gate=gate))
        await asyncio.to_thread(
            upstream.wait_until,
            lambda calls: sum(call.finished_at is None and call.disconnected_at is None for call in calls) == CLIENTS,
            f"{CLIENTS} calls that wait",
        )
    before = server.workers
    before[0].send_signal(signal.SIGKILL)
    await asyncio.to_thread(
        eventually, lambda: len(server.workers) == WORKERS and before[0] not in server.workers, what="another worker", timeout_s=20
    )
    upstream.script(REPLY)
    gate.open()


def counted(prometheus: Prometheus, agent):
    """Return what the last scrape found; None where it failed, as one of a server that is short of cores may."""
    provider = agent.live_version.provider.slug
    values = {
        "messages": prometheus.value(f'sum(chatbot_messages_total{{agent="{agent.slug}",outcome="done"}})'),
        "calls": prometheus.value(f'sum(chatbot_upstream_attempts_total{{provider="{provider}"}})'),
        "prompt": prometheus.value(f'sum(chatbot_tokens_total{{agent="{agent.slug}",kind="prompt"}})'),
        "completion": prometheus.value(f'sum(chatbot_tokens_total{{agent="{agent.slug}",kind="completion"}})'),
        "usd": prometheus.value(f'sum(chatbot_cost_usd_total{{agent="{agent.slug}"}})'),
        "timed": prometheus.value(f'sum(chatbot_request_duration_seconds_count{{agent="{agent.slug}"}})'),
        "streams": prometheus.value("chatbot_open_streams"),
    }
    return None if None in values.values() else values


def settle_what_was_left(agent):
    """Do as the worker does once the time of calls that nobody settled is over."""
    running = Attempt.objects.filter(agent=agent.slug, outcome=AttemptOutcome.RUNNING)
    running.update(deadline_at=datetime.now(UTC) - timedelta(seconds=1))
    with transaction.atomic():
        settle_orphans()
    assert not running.exists()


@pytest.mark.parametrize("moment", ["calls are at the upstream", "anything is under way"])
def test_counters_stay_right_while_workers_are_killed(moment, make_chat_agent, upstream, priced, start_server, start_prometheus):
    upstream.script(REPLY)
    agent = make_chat_agent(upstream)
    priced(agent)
    server = start_server(workers=WORKERS)
    prometheus = start_prometheus([server.port])
    load = Load(server, agent)

    async def drive():
        async with load.running():
            for _ in range(KILLS):
                await load.until_watched(prometheus)
                await kill_one(server, upstream, all_are_at_the_upstream=moment == "calls are at the upstream")
            await load.until_watched(prometheus)

    asyncio.run(drive())
    calls, lost = len(upstream.calls), len(load.unanswered)
    assert len(load.answered) > KILLS * TURNS_BETWEEN
    assert 0 < lost <= KILLS * CLIENTS

    scrapes = prometheus.scrapes()
    eventually(lambda: prometheus.scrapes() >= scrapes + 2, what="a scrape that began after the end")  # one may be under way
    found = eventually(lambda: counted(prometheus, agent), what="a scrape that went well")
    assert list(Attempt.objects.filter(agent=agent.slug, is_estimated=True).values()) == []  # the upstream told each usage
    if moment == "calls are at the upstream":
        assert found["messages"] == len(load.answered)
        assert found["calls"] == calls - lost
    else:
        assert len(load.answered) <= found["messages"] <= len(load.answered) + lost
        assert calls - lost <= found["calls"] <= calls
    assert found["timed"] == found["messages"]
    assert (found["prompt"], found["completion"]) == (11 * found["calls"], 7 * found["calls"])
    assert found["usd"] == pytest.approx(0.018 * found["calls"])
    assert found["streams"] == 0

    # Nothing ever went back.
    watched = prometheus.samples(f"{ALL_COUNTERS}[10m]")
    assert max(len(values) for _, values in watched) > SCRAPES_BETWEEN * KILLS
    for labels, values in watched:
        assert values == sorted(values), labels

    # The ledger has every call once, and is exact.
    settle_what_was_left(agent)
    messages = dict(Turn.objects.filter(agent=agent.slug).values_list("id", "message"))
    attempts = list(Attempt.objects.filter(agent=agent.slug))
    in_ledger = Counter(messages[attempt.turn_id] for attempt in attempts)
    at_upstream = Counter(call.newest_message for call in upstream.calls)
    assert max(in_ledger.values()) == 1
    never_called = in_ledger - at_upstream
    assert at_upstream <= in_ledger
    assert set(never_called) <= load.unanswered  # promised, and its process killed before it called
    if moment == "calls are at the upstream":
        assert in_ledger == at_upstream
    settled = [attempt for attempt in attempts if attempt.outcome == AttemptOutcome.DONE]
    assert len(settled) >= found["calls"]
    assert len(settled) - found["calls"] <= lost
    assert sum(attempt.cost_usd for attempt in settled) == Decimal("0.018") * len(settled)
