"""`answer()` itself: what is kept when it is closed at any point, and who may try a draft."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_django import Settings

from agents.access import anonymous, editor
from agents.chat.answer import answer
from agents.chat.events import Delta, Done, Started
from agents.chat.question import Question
from agents.providers.wire import _endpoint, _transport
from agents.versions.live import AgentNotFound
from memory.models import Turn
from observability.api import run_burst
from tests.factories import make_version
from tests.upstream import Reply, Upstream

MakeAgent = Callable[..., Any]


@pytest.fixture(autouse=True)
def _fresh_client(settings: Settings) -> Iterator[None]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    _endpoint.cache_clear()
    _transport.cache_clear()
    yield
    _endpoint.cache_clear()
    _transport.cache_clear()


def take(question: Question, *, most: int = 1000) -> list[Any]:
    """Return the first `most` events, close the rest, and wait until the turn's end is stored."""

    async def run() -> list[Any]:
        taken = []
        events = answer(question)
        try:
            async for event in events:
                taken.append(event)
                if len(taken) == most:
                    break
        finally:
            await events.aclose()
            async with asyncio.timeout(60):
                while await run_burst(lambda: Turn.objects.filter(agent=question.agent, state="running").exists()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await _transport().aclose()
        return taken

    return asyncio.run(run())


@pytest.mark.parametrize("most", [1, 2, 3])
def test_closing_at_any_event_keeps_what_came_and_hangs_up(upstream: Upstream, make_chat_agent: MakeAgent, most: int) -> None:
    upstream.script(Reply(chunks=["tick ", "tock "], never_ends=True, delay_between_s=0.02))
    agent = make_chat_agent(upstream)
    events = take(Question(agent=agent.slug, message="Hello", caller=anonymous("::1"), stream=True), most=most)
    seen = "".join(event.text for event in events if isinstance(event, Delta))
    turn = Turn.objects.get(agent=agent.slug)
    assert isinstance(events[0], Started)
    assert turn.id == events[0].message_id
    assert (turn.state, turn.reply) == ("cancelled", seen)
    if most == 1:
        assert upstream.calls == []  # the model was not even asked
    else:
        upstream.wait_for_disconnect()
        assert turn.usage_estimated
        assert (turn.prompt_tokens or 0) > 0


def test_events_come_in_order_and_deltas_make_the_reply(upstream: Upstream, make_chat_agent: MakeAgent) -> None:
    upstream.script(Reply("Hello there, friend", usage=(9, 4)))
    agent = make_chat_agent(upstream)
    started, *deltas, done = take(Question(agent=agent.slug, message="Hello", caller=anonymous("::1"), stream=True))
    assert isinstance(started, Started)
    assert isinstance(done, Done)
    assert "".join(delta.text for delta in deltas) == done.reply == "Hello there, friend"
    assert (done.message_id, done.session_id, done.prompt_tokens, done.completion_tokens) == (started.message_id, started.session_id, 9, 4)


def test_drafts_are_for_editors(upstream: Upstream, make_chat_agent: MakeAgent) -> None:
    agent = make_chat_agent(upstream, system_prompt="live")
    make_version(agent, published=False, system_prompt="draft")
    [*_, done] = take(Question(agent=agent.slug, message="Hello", caller=editor(1), draft=True))
    assert done.version == 2
    assert upstream.calls[0].messages[0]["content"] == "draft"
    with pytest.raises(AgentNotFound):
        take(Question(agent=agent.slug, message="Hello", caller=anonymous("::1"), draft=True))
