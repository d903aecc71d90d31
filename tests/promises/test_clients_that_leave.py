"""A client that leaves: the upstream call is closed within a second, and what had arrived is kept."""

import asyncio
import time
from statistics import median

import pytest

from memory.models import Turn, TurnState
from tests.promises.conftest import RawStream
from tests.upstream import Gate, Reply, Silence
from tests.waiting import eventually

CLIENTS = 50


def states(agent):
    return dict(Turn.objects.filter(agent=agent.slug).values_list("message", "state"))


def test_50_clients_leave_at_random_points(make_chat_agent, upstream, server, seeded):
    random = seeded()
    upstream.script(Reply(chunks=["tick ", "tock "], never_ends=True, delay_before_headers_s=0.05, delay_between_s=0.05))
    agent = make_chat_agent(upstream)
    left_at, seen = {}, {}

    async def client(number):
        message, deltas = f"client {number}", random.choice([0, 0, 1, 2, 5, 20])
        stream = RawStream(server.port, f"/api/chat/{agent.slug}", {"message": message, "stream": deltas > 0})
        await asyncio.sleep(random.uniform(0, 0.5))
        await stream.send()
        async with asyncio.timeout(120):
            await stream.read_deltas(deltas)
        if not deltas:
            await asyncio.sleep(random.uniform(0, 0.3))
        left_at[message] = time.monotonic()
        stream.leave(abruptly=random.random() < 0.5)
        seen[message] = stream.reply

    async def drive():
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))

    asyncio.run(drive())
    calls = upstream.wait_until(lambda calls: all(call.disconnected_at for call in calls), "end of every call")
    late = {call.newest_message: call.disconnected_at - left_at[call.newest_message] for call in calls}
    print(f"{len(calls)} calls; hang-up after {median(late.values()):.3f} s, the slowest after {max(late.values()):.3f} s")
    assert {message for message, text in seen.items() if text} <= set(late)
    assert median(late.values()) < 1
    assert max(late.values()) < 10  # on a busy machine
    eventually(lambda: TurnState.RUNNING not in states(agent).values(), what="all turns ended")
    stored = {turn.message: turn for turn in Turn.objects.filter(agent=agent.slug)}
    assert {turn.state for turn in stored.values()} == {TurnState.CANCELLED}
    for call in calls:
        reply = stored[call.newest_message].reply
        assert ("tick tock " * 5_000).startswith(reply)
        assert len(reply) >= len(seen[call.newest_message])
    assert any(turn.reply for turn in stored.values())


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_a_silent_upstream_is_noticed(make_chat_agent, upstream, server, stream):
    upstream.script(Silence())
    agent = make_chat_agent(upstream)

    async def drive():
        raw = RawStream(server.port, f"/api/chat/{agent.slug}", {"message": "Hello", "stream": stream})
        await raw.send()
        await asyncio.to_thread(upstream.wait_for_calls)
        raw.leave()

    asyncio.run(drive())
    upstream.wait_for_disconnect()
    eventually(lambda: states(agent) == {"Hello": TurnState.CANCELLED}, what="the turn stored as cancelled")


def test_the_partial_answer_of_a_cancelled_turn_is_in_the_next_prompt(make_chat_agent, upstream, server, api):
    gate = Gate()
    upstream.script(Reply("one two three", gate=gate, gate_before_chunk=3), Reply("Fine"))
    agent = make_chat_agent(upstream)

    async def drive():
        raw = RawStream(server.port, f"/api/chat/{agent.slug}", {"message": "Count", "session_id": "s"})
        await raw.send()
        await raw.read_until(b"two")
        raw.leave()

    asyncio.run(drive())
    eventually(lambda: states(agent) == {"Count": TurnState.CANCELLED}, what="the turn stored as cancelled")
    assert Turn.objects.get(agent=agent.slug).reply == "one two"
    api.post(f"/api/chat/{agent.slug}", json={"message": "Go on", "session_id": "s"})
    assert [message["content"] for message in upstream.calls[-1].messages][1:] == ["Count", "one two", "Go on"]


def test_no_place_is_lost_to_clients_that_left(make_chat_agent, upstream, start_server):
    upstream.script(Silence())
    agent = make_chat_agent(upstream)
    server = start_server(CHAT_MAX_CONCURRENT_TURNS="5")

    async def drive():
        for round_number in range(1, 4):
            streams = [RawStream(server.port, f"/api/chat/{agent.slug}", {"message": "Hi"}) for _ in range(5)]
            for stream in streams:
                await stream.send()
            await asyncio.to_thread(upstream.wait_for_calls, 5 * round_number)
            for stream in streams:
                stream.leave(abruptly=True)
            await asyncio.to_thread(upstream.wait_for_disconnect, 5 * round_number)

    asyncio.run(drive())
    upstream.script(Reply("Room for me"))
    with server.client() as client:
        assert client.post(f"/api/chat/{agent.slug}", json={"message": "Hi"}).status_code == 200
