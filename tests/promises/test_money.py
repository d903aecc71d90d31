"""Budgets hold whatever happens, and the ledger has every call that the upstream saw."""

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx2
import pytest
from django.db import transaction

from memory.models import Turn
from observability.models import Attempt, Budget, BudgetPeriod, Reservation
from observability.orphans import settle_orphans
from tests.promises.conftest import RawStream, in_time, worker_of
from tests.upstream import Gate, Refusal, Reply, Silence
from tests.waiting import eventually

CLIENTS = 64
AT_ONCE = 10
WORST = {"prompt_budget_tokens": 1000, "max_output_tokens": 1000}  # 2 USD at the price of `priced`


def budget_for(agent, *, usd):
    return Budget.objects.create(name=f"budget of {agent.slug}", scope="agent", agent=agent.slug, limit_usd=Decimal(usd))


def period(budget):
    return BudgetPeriod.objects.get(budget=budget)


def attempts(agent, **fields):
    return Attempt.objects.filter(agent=agent.slug, **fields)


def ask_together(server, agent, count, **headers):
    """Send `count` requests at once and return the responses."""

    async def drive():
        barrier = asyncio.Barrier(count)
        async with server.async_client() as client:

            async def ask(number):
                await barrier.wait()
                return await client.post(f"/api/chat/{agent.slug}", json={"message": f"message {number}"}, headers=headers)

            return await asyncio.gather(*(ask(number) for number in range(count)))

    return asyncio.run(drive())


def test_64_at_once_never_exceed_a_budget_for_10(make_chat_agent, upstream, priced, start_server):
    gate = Gate()
    upstream.script(Reply(gate=gate))
    agent = make_chat_agent(upstream, **WORST)
    priced(agent)
    budget = budget_for(agent, usd=2 * AT_ONCE)
    server = start_server(workers=3)

    async def drive():
        barrier = asyncio.Barrier(CLIENTS)
        async with server.async_client() as client:

            async def ask(number):
                await barrier.wait()
                return await client.post(f"/api/chat/{agent.slug}", json={"message": f"message {number}"})

            asked = [asyncio.create_task(ask(number)) for number in range(CLIENTS)]
            while sum(task.done() for task in asked) < CLIENTS - AT_ONCE:  # noqa: ASYNC110 - they are other tasks' ends
                await asyncio.sleep(0.02)
            await in_time(lambda: period(budget).reserved_usd == 2 * AT_ONCE, what="the whole budget is promised")
            gate.open()
            return await asyncio.gather(*asked)

    responses = asyncio.run(drive())
    assert Counter(response.status_code for response in responses) == {200: AT_ONCE, 429: CLIENTS - AT_ONCE}
    refused = [response for response in responses if response.status_code == 429]
    assert {response.json()["type"] for response in refused} == {"/errors/budget-busy"}
    assert all(int(response.headers["retry-after"]) > 0 for response in refused)
    assert len(upstream.calls) == AT_ONCE
    assert (period(budget).reserved_usd, period(budget).spent_usd) == (0, Decimal("0.018") * AT_ONCE)
    assert Reservation.objects.filter(period__budget=budget).count() == 0
    # What settled lower is free at once: as many fit again, and none of them waits.
    upstream.script(Reply())
    assert Counter(response.status_code for response in ask_together(server, agent, AT_ONCE - 1)) == {200: AT_ONCE - 1}


def test_402_only_where_what_is_spent_leaves_no_room(make_chat_agent, upstream, priced, start_server):
    upstream.script(Reply(usage=(900, 900)))
    agent = make_chat_agent(upstream, **WORST)
    priced(agent)
    budget = budget_for(agent, usd="4")
    api = start_server().client()
    assert api.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}).status_code == 200
    while period(budget).spent_usd + 2 <= 4:
        assert api.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}).status_code == 200
    calls = len(upstream.calls)
    for stream in (False, True):
        refused = api.post(f"/api/chat/{agent.slug}", json={"message": f"Hello {stream}", "stream": stream})
        assert (refused.status_code, refused.json()["type"]) == (402, "/errors/budget-spent")
        assert int(refused.headers["retry-after"]) > 0
        assert "resets" in refused.json()["detail"]
        turn = Turn.objects.get(agent=agent.slug, message=f"Hello {stream}")  # what the person wrote is kept
        assert (turn.state, turn.error_code) == ("failed", "budget-spent")
    assert len(upstream.calls) == calls
    assert period(budget).spent_usd <= 4
    assert period(budget).reserved_usd == 0


def test_usage_that_nobody_reports_is_a_flagged_estimate(make_chat_agent, upstream, priced, start_server):
    agent = make_chat_agent(upstream)
    priced(agent)
    api = start_server().client()
    for stream in (False, True):
        upstream.script(Reply("one two three four", usage=None))
        assert api.post(f"/api/chat/{agent.slug}", json={"message": "Count to four", "stream": stream}).status_code == 200
    for attempt in attempts(agent):
        assert attempt.is_estimated
        assert attempt.prompt_tokens > 3
        assert attempt.completion_tokens > 3
        assert attempt.cost_usd == Decimal(attempt.prompt_tokens + attempt.completion_tokens) / 1000


def test_what_a_hanging_model_has_read_is_counted(make_chat_agent, upstream, priced, start_server):
    upstream.script(Silence())
    agent = make_chat_agent(upstream, provider={"first_token_timeout_s": 0.3, "total_timeout_s": 0.6})
    priced(agent)
    api = start_server().client()
    assert b"upstream-timed-out" in api.post(f"/api/chat/{agent.slug}", json={"message": "Hi", "stream": True}).content
    [attempt] = eventually(lambda: attempts(agent).exclude(outcome="running"), what="the attempt is settled")
    assert (attempt.outcome, attempt.is_estimated) == ("failed", True)
    assert attempt.cost_usd > 0


def test_a_killed_worker_leaves_a_promise_that_the_reaper_turns_into_its_worst_case(make_chat_agent, upstream, priced, start_server):
    upstream.script(Reply(chunks=["tick ", "tock "], never_ends=True, delay_between_s=0.02))
    agent = make_chat_agent(upstream, **WORST)
    priced(agent)
    budget = budget_for(agent, usd="10")
    server = start_server(workers=2)

    async def drive():
        stream = RawStream(server.port, f"/api/chat/{agent.slug}", {"message": "Hi", "stream": True})
        await stream.send()
        await stream.read_deltas(3)
        worker_of(server, stream).send_signal(signal.SIGKILL)

    asyncio.run(drive())
    upstream.wait_for_disconnect()
    [attempt] = attempts(agent)
    assert (attempt.outcome, period(budget).reserved_usd) == ("running", 2)
    attempts(agent).update(deadline_at=datetime.now(UTC) - timedelta(seconds=1))  # its time passes
    with transaction.atomic():
        assert settle_orphans() >= 1
    [attempt] = attempts(agent)
    assert (attempt.outcome, attempt.is_estimated, attempt.cost_usd) == ("orphaned", True, 2)
    assert (period(budget).reserved_usd, period(budget).spent_usd) == (0, 2)


def test_the_ledger_equals_the_upstreams_log(make_chat_agent, upstream, open_upstream, priced, start_server, seeded):
    random, other = seeded(), open_upstream()
    agent = make_chat_agent(upstream, fallbacks=[(other, "other-model")], reply_cache_s=60)
    priced(agent, models=("test-model", "other-model"))
    server = start_server()
    ways = [
        [Reply()],
        [Refusal(500), Reply()],
        [Refusal(503), Refusal(502), Reply(usage=None)],
        [Refusal(400)],  # falls back
        [Reply("one two three", cut_after_chunks=1)],
        [Reply(chunks=["tick "], never_ends=True, delay_between_s=0.02)],  # its client leaves
    ]
    seen = 0

    async def leave_midway(message):
        stream = RawStream(server.port, f"/api/chat/{agent.slug}", {"message": message, "stream": True})
        await stream.send()
        await stream.read_deltas(2)
        stream.leave()

    with server.client() as client:
        for number in range(24):
            way = random.randrange(len(ways))
            upstream.script(*ways[way])
            if way == 5:
                asyncio.run(leave_midway(f"message {number}"))
            else:
                client.post(f"/api/chat/{agent.slug}", json={"message": f"message {number}", "stream": random.random() < 0.5})
                if way == 0:  # a question asked again is answered from the cache
                    seen += client.post(f"/api/chat/{agent.slug}", json={"message": f"message {number}"}).json()["cached"]
    eventually(lambda: not attempts(agent, outcome="running").exists(), what="all attempts are settled")
    made = attempts(agent).exclude(outcome="cached")
    assert Counter(made.values_list("model", flat=True)) == Counter(call.model for call in [*upstream.calls, *other.calls])
    assert attempts(agent, outcome="cached").count() == seen
    assert sum(attempt.cost_usd for attempt in attempts(agent, outcome="cached")) == 0
    told = made.filter(outcome="done", is_estimated=False)
    assert {(attempt.prompt_tokens, attempt.completion_tokens) for attempt in told} <= {(11, 7)}
    for attempt in made:
        assert attempt.cost_usd == Decimal((attempt.prompt_tokens or 0) + (attempt.completion_tokens or 0)) / 1000
        assert attempt.cost_usd > 0 or attempt.outcome == "failed"
    assert set(attempts(agent, outcome="cancelled").values_list("is_estimated", flat=True)) <= {True}


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_while_waiting_for_a_budget_leaves_nothing_behind(make_chat_agent, upstream, priced, start_server, stream):
    gate = Gate()
    upstream.script(Reply(gate=gate))
    agent = make_chat_agent(upstream, **WORST)
    priced(agent)
    budget = budget_for(agent, usd="2.5")
    server = start_server()

    def ask(message):
        return RawStream(server.port, f"/api/chat/{agent.slug}", {"message": message, "stream": stream})

    async def leave(message):
        second, turns = ask(message), Turn.objects.filter(agent=agent.slug, message=message)
        await second.send()
        await in_time(turns.exists, what="it is stored")
        second.leave(abruptly=True)
        await in_time(turns.exclude(state="running").exists, what="it is ended")

    async def drive():
        first = ask("one")
        await first.send()
        await asyncio.to_thread(upstream.wait_for_calls, 1)
        for number in range(3):  # a client that got no core for the two seconds is refused before it leaves
            await leave(f"two {number}")
        gate.open()
        await first.read_until(b'"cached"')

    asyncio.run(drive())
    assert Turn.objects.filter(agent=agent.slug, state="cancelled").exists()
    eventually(lambda: period(budget).reserved_usd == 0, what="nothing is promised")
    assert not attempts(agent, outcome="running").exists()
    assert Reservation.objects.filter(period__budget=budget).count() == 0
    assert period(budget).spent_usd == Decimal("0.018")
    assert len(upstream.calls) == 1
    with server.client() as client:
        assert client.post(f"/api/chat/{agent.slug}", json={"message": "three"}).status_code == 200


def test_no_connection_is_held_while_waiting_for_a_budget(make_chat_agent, upstream, priced, start_server):
    gate = Gate()
    upstream.script(Reply(gate=gate))
    agent = make_chat_agent(upstream, **WORST)
    free = make_chat_agent(upstream)
    priced(agent)
    budget_for(agent, usd="2.5")
    server = start_server(DATABASE_POOL_SIZE="2")

    async def drive():
        async with server.async_client() as client:
            asked = [
                asyncio.create_task(client.post(f"/api/chat/{agent.slug}", json={"message": f"message {number}"})) for number in range(30)
            ]
            await asyncio.to_thread(upstream.wait_for_calls, 1)
            upstream.script(Reply())
            answered = await client.post(f"/api/chat/{free.slug}", json={"message": "Hi"})
            gate.open()
            return answered, await asyncio.gather(*asked)

    answered, responses = asyncio.run(drive())
    assert answered.status_code == 200
    assert isinstance(answered, httpx2.Response)
    assert {response.status_code for response in responses} <= {200, 429}
    eventually(lambda: not attempts(agent, outcome="running").exists(), what="all attempts are settled")
