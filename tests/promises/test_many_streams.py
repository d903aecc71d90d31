"""500 streams of 100 chunks open at once on one worker: each has its exact text and one stored turn, in bounded memory."""

import asyncio

from django.db import connection

from memory.models import Turn, TurnState
from tests.promises.conftest import RawStream
from tests.upstream import Gate, Reply

STREAMS = 500
CHUNKS = 100
MOST_RSS_BYTES = 400_000_000


def connections_at_work():
    """The server's database connections that are inside a transaction or a statement."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend' AND state <> 'idle'"
            )
            return cursor.fetchone()[0]
    finally:
        connection.close()  # this runs in a thread, which has a connection of its own


def test_500_streams_at_once(make_chat_agent, upstream, start_server):
    gate = Gate()
    upstream.script(Reply(echo=CHUNKS, gate=gate, gate_before_chunk=2))
    agent = make_chat_agent(upstream)
    server = start_server(DATABASE_POOL_SIZE="2")
    [worker] = server.workers
    messages = [f"message {number}" for number in range(STREAMS)]

    async def drive():
        streams = [RawStream(server.port, f"/api/chat/{agent.slug}", {"message": message}) for message in messages]
        for stream in streams:
            await stream.send()
        async with asyncio.timeout(120):
            await asyncio.gather(*(stream.read_until(b"event: delta") for stream in streams))
        held = [await asyncio.to_thread(connections_at_work) for _ in range(5)]
        gate.open()
        async with asyncio.timeout(240):
            answers = await asyncio.gather(*(stream.read_all() for stream in streams))
        return held, answers

    held, answers = asyncio.run(drive())
    assert min(held) == 0, held  # a stream would hold its connection all the time; servers look at their settings now and then
    for message, events in zip(messages, answers, strict=True):
        expected = Reply(echo=CHUNKS).text_for(message)
        assert events[-1].name == "done"
        assert "".join(event.data["text"] for event in events if event.name == "delta") == expected == events[-1].data["reply"]
    stored = Turn.objects.filter(agent=agent.slug).values_list("message", "reply", "state")
    assert sorted(stored) == sorted((message, Reply(echo=CHUNKS).text_for(message), TurnState.DONE) for message in messages)
    assert len(upstream.calls) == STREAMS
    rss = worker.memory_info().rss
    print(f"worker RSS {rss / 1e6:.0f} MB")
    assert rss < MOST_RSS_BYTES


def test_other_requests_are_answered_while_streams_hold_on(make_chat_agent, upstream, open_upstream, start_server):
    """A pool of two connections and 64 streams that wait: whoever else comes is answered as if they were not there."""
    gate, other = Gate(), open_upstream()
    upstream.script(Reply(echo=3, gate=gate, gate_before_chunk=2))
    slow, quick = make_chat_agent(upstream), make_chat_agent(other)
    server = start_server(DATABASE_POOL_SIZE="2")

    async def drive():
        streams = [RawStream(server.port, f"/api/chat/{slow.slug}", {"message": str(number)}) for number in range(64)]
        for stream in streams:
            await stream.send()
        async with asyncio.timeout(120):
            await asyncio.gather(*(stream.read_until(b"event: delta") for stream in streams))
        async with server.async_client() as client, asyncio.timeout(60):
            answers = await asyncio.gather(*(client.post(f"/api/chat/{quick.slug}", json={"message": "Hi"}) for _ in range(32)))
        gate.open()
        await asyncio.gather(*(stream.read_all() for stream in streams))
        return [answer.status_code for answer in answers]

    assert asyncio.run(drive()) == [200] * 32


def test_the_server_sheds_what_it_cannot_hold_at_once_and_says_when_to_come_back(make_chat_agent, upstream, start_server):
    gate = Gate()
    upstream.script(Reply(echo=3, gate=gate, gate_before_chunk=2))
    agent = make_chat_agent(upstream)
    server = start_server(CHAT_MAX_CONCURRENT_TURNS="10")

    async def drive():
        streams = [RawStream(server.port, f"/api/chat/{agent.slug}", {"message": str(number)}) for number in range(10)]
        for stream in streams:
            await stream.send()
        await asyncio.gather(*(stream.read_until(b"event: delta") for stream in streams))
        async with server.async_client() as client:
            refused = await client.post(f"/api/chat/{agent.slug}", json={"message": "One too many"})
            gate.open()
            await asyncio.gather(*(stream.read_all() for stream in streams))
            return refused, await client.post(f"/api/chat/{agent.slug}", json={"message": "Now"})

    refused, later = asyncio.run(drive())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["content-type"] == "application/problem+json"
    assert later.status_code == 200
