"""A server that is asked to stop finishes what it can; one that is killed leaves nothing acknowledged behind."""

import asyncio
import signal

import httpx2

from memory.models import Turn, TurnState
from tests.promises.conftest import RawStream
from tests.upstream import Gate, Reply
from tests.waiting import eventually


def test_sigterm_lets_open_streams_finish(make_chat_agent, upstream, start_server):
    gate = Gate()
    upstream.script(Reply("one two three", gate=gate, gate_before_chunk=2))
    agent = make_chat_agent(upstream)
    server = start_server()

    async def drive():
        streams = [RawStream(server.port, f"/api/chat/{agent.slug}", {"message": f"message {number}"}) for number in range(10)]
        for stream in streams:
            await stream.send()
        await asyncio.gather(*(stream.read_deltas(1) for stream in streams))
        server.ask_to_stop()
        await asyncio.sleep(0.5)  # it is stopping now, and must not hurry them
        gate.open()
        return await asyncio.gather(*(stream.read_all() for stream in streams))

    for events in asyncio.run(drive()):
        assert events[-1].name == "done", events[-1]
        assert events[-1].data["reply"] == "one two three"
    eventually(lambda: not server.is_running, what="the server ended", timeout_s=18)  # by itself: it would be killed after 25 s
    assert list(Turn.objects.filter(agent=agent.slug).values_list("state", flat=True)) == [TurnState.DONE] * 10


def test_a_killed_worker_leaves_the_persons_message_and_another_takes_over(make_chat_agent, upstream, start_server):
    gate = Gate()
    upstream.script(Reply("one two three", gate=gate, gate_before_chunk=2), Reply("Back again"))
    agent = make_chat_agent(upstream)
    server = start_server()
    [killed] = server.workers

    async def drive():
        stream = RawStream(server.port, f"/api/chat/{agent.slug}", {"message": "Remember me", "session_id": "s"})
        await stream.send()
        await stream.read_deltas(1)
        killed.send_signal(signal.SIGKILL)

    asyncio.run(drive())
    upstream.wait_for_disconnect()
    with server.client() as client:

        def answer():
            try:
                return client.post(f"/api/chat/{agent.slug}", json={"message": "Hello?", "session_id": "s"})
            except httpx2.TransportError:
                return None

        response = eventually(answer, what="a new worker answers", timeout_s=90)
    assert response.json()["reply"] == "Back again"
    first, *_ = Turn.objects.filter(agent=agent.slug).order_by("seq")
    assert (first.message, first.state, first.seq) == ("Remember me", TurnState.RUNNING, 1)
    assert first.deadline_at > first.created_at
    gate.open()
