"""Of identical questions at the same time one reaches the model, whoever fails, leaves or dies."""

import asyncio
import signal
from collections import Counter
from decimal import Decimal

import pytest

from memory.models import Turn
from observability.models import Attempt
from tests.promises.conftest import WORKERS, RawStream, in_time, worker_of
from tests.upstream import Gate, Refusal, Reply
from tests.waiting import eventually

NOWHERE = "redis://127.0.0.1:1/0"
QUESTION = {"message": "What are your opening hours?"}


def attempts(agent, **fields):
    return Attempt.objects.filter(agent=agent.slug, **fields)


def nothing_runs(agent):
    return not attempts(agent, outcome="running").exists() and not Turn.objects.filter(agent=agent.slug, state="running").exists()


def ask_together(server, agent, upstream, gate, *, count=100):
    """Ask the same at once; the model answers once all are on their way."""

    async def drive():
        async with server.async_client() as client:
            asked = [asyncio.create_task(client.post(f"/api/chat/{agent.slug}", json=QUESTION)) for _ in range(count)]
            await in_time(lambda: Turn.objects.filter(agent=agent.slug).count() == count, what="all are stored")
            gate.open()
            return await asyncio.gather(*asked)

    return asyncio.run(drive())


def test_100_identical_questions_to_3_workers_are_one_call(make_chat_agent, open_upstream, priced, start_server):
    server = start_server(workers=WORKERS)
    for _ in range(3):  # a leader that got no core for its lease of 3 s is rightly taken for dead
        gate, upstream = Gate(), open_upstream()
        upstream.script(Reply("From nine to five.", gate=gate))
        agent = make_chat_agent(upstream, reply_cache_s=60)
        priced(agent)
        responses = ask_together(server, agent, upstream, gate)
        assert Counter((response.status_code, response.json()["reply"]) for response in responses) == {(200, "From nine to five."): 100}
        assert len(upstream.calls) <= 2  # one lease lost, no more
        if len(upstream.calls) == 1:
            break
    assert len(upstream.calls) == 1
    assert Counter(response.json()["cached"] for response in responses) == {False: 1, True: 99}
    assert {response.json()["usage"]["saved_usd"] for response in responses if response.json()["cached"]} == {"0.0180000000"}
    assert Counter(attempts(agent).values_list("outcome", "cost_usd", "saved_usd")) == {
        ("done", Decimal("0.018"), 0): 1,
        ("cached", 0, Decimal("0.018")): 99,
    }
    assert Turn.objects.filter(agent=agent.slug, state="done", reply="From nine to five.").count() == 100


def test_without_redis_they_are_one_call_a_worker(make_chat_agent, upstream, priced, start_server):
    gate = Gate()
    upstream.script(Reply("From nine to five.", gate=gate))
    agent = make_chat_agent(upstream, reply_cache_s=60)
    priced(agent)
    responses = ask_together(start_server(workers=WORKERS, REDIS_URL=NOWHERE), agent, upstream, gate)
    assert {response.status_code for response in responses} == {200}
    assert 1 <= len(upstream.calls) <= WORKERS
    eventually(lambda: nothing_runs(agent), what="everything is settled")
    assert attempts(agent, outcome="done").count() == len(upstream.calls)
    assert attempts(agent, outcome="cached").count() == 100 - len(upstream.calls)
    assert set(attempts(agent).values_list("outcome", flat=True)) <= {"done", "cached", "cancelled"}  # promised, and not needed
    assert sum(attempt.cost_usd for attempt in attempts(agent)) == Decimal("0.018") * len(upstream.calls)


def test_where_the_leader_fails_the_others_go_on(make_chat_agent, upstream, start_server):
    gate = Gate()
    agent = make_chat_agent(upstream, reply_cache_s=60)
    upstream.script(Refusal(400, delay_before_headers_s=1.0), Reply("Fine"))
    gate.open()
    responses = ask_together(start_server(workers=2), agent, upstream, gate, count=10)
    assert Counter(response.status_code for response in responses) == {502: 1, 200: 9}
    eventually(lambda: nothing_runs(agent), what="everything is settled")
    assert len(upstream.calls) == attempts(agent).exclude(outcome="cached").count() <= 10


def stream_to(server, agent):
    return RawStream(server.port, f"/api/chat/{agent.slug}", QUESTION | {"stream": True})


def test_where_the_leaders_client_leaves_one_of_the_others_takes_over(make_chat_agent, open_upstream, start_server):
    server = start_server(workers=2)

    async def drive(agent, upstream, gate):
        leader, others = stream_to(server, agent), [stream_to(server, agent) for _ in range(8)]
        await leader.send()
        await asyncio.to_thread(upstream.wait_for_calls, 1)
        for other in others:
            await other.send()
        await asyncio.gather(*(other.read_until(b"event: start") for other in others))
        leader.leave()
        await asyncio.to_thread(upstream.wait_for_calls, 2)
        gate.open()
        async with asyncio.timeout(120):
            return await asyncio.gather(*(other.read_all() for other in others))

    for _ in range(3):  # as above
        gate, upstream = Gate(), open_upstream()
        upstream.script(Reply("From nine to five.", gate=gate))
        agent = make_chat_agent(upstream, reply_cache_s=60)
        answers = asyncio.run(drive(agent, upstream, gate))
        assert {events[-1].data["reply"] for events in answers} == {"From nine to five."}
        assert len(upstream.calls) <= 3
        if len(upstream.calls) == 2:
            break
    assert len(upstream.calls) == 2
    eventually(lambda: nothing_runs(agent), what="everything is settled")
    assert Counter(attempts(agent).values_list("outcome", flat=True)) == {"cancelled": 1, "done": 1, "cached": 7}


def test_where_the_leader_is_killed_others_go_on(make_chat_agent, upstream, start_server):
    gate = Gate()
    upstream.script(Reply("From nine to five.", gate=gate))
    agent = make_chat_agent(upstream, reply_cache_s=60)
    server = start_server(workers=2)

    async def drive():
        leader = stream_to(server, agent)
        await leader.send()
        await asyncio.to_thread(upstream.wait_for_calls, 1)
        doomed = worker_of(server, leader)
        others = []
        for _ in range(50):
            other = stream_to(server, agent)
            await other.send()
            await other.read_until(b"event: start")
            if worker_of(server, other).pid != doomed.pid:
                others.append(other)
            if len(others) == 5:
                break
        assert len(others) == 5, "no connection reached the other worker"
        doomed.send_signal(signal.SIGKILL)
        await asyncio.to_thread(upstream.wait_for_calls, 2, timeout_s=20)
        gate.open()
        async with asyncio.timeout(120):
            return await asyncio.gather(*(other.read_all() for other in others))

    answers = asyncio.run(drive())
    assert {events[-1].data["reply"] for events in answers} == {"From nine to five."}
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("redis_url", [None, NOWHERE])
def test_leaving_while_waiting_for_anothers_answer_leaves_nothing_behind(make_chat_agent, upstream, start_server, redis_url):
    gate = Gate()
    upstream.script(Reply("From nine to five.", gate=gate))
    agent = make_chat_agent(upstream, reply_cache_s=60)
    server = start_server(**({"REDIS_URL": redis_url} if redis_url else {}))

    async def drive():
        leader, leaving, staying = (stream_to(server, agent) for _ in range(3))
        await leader.send()
        await asyncio.to_thread(upstream.wait_for_calls, 1)
        for other in (leaving, staying):
            await other.send()
            await other.read_until(b"event: start")
        leaving.leave(abruptly=True)
        await in_time(lambda: Turn.objects.filter(agent=agent.slug, state="cancelled").count() == 1, what="one is ended")
        gate.open()
        async with asyncio.timeout(120):
            return [await leader.read_all(), await staying.read_all()]

    answers = asyncio.run(drive())
    assert [events[-1].data["cached"] for events in answers] == [False, True]
    assert len(upstream.calls) == 1
    eventually(lambda: nothing_runs(agent), what="everything is settled")
    assert sum(attempt.completion_tokens or 0 for attempt in attempts(agent)) == 7
