"""What a chat turn costs the stores: round trips to PostgreSQL, with one statement or several, and to Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
import redis.connection
from django.db.backends.utils import CursorWrapper

from agents.access import anonymous
from agents.chat.answer import answer
from agents.chat.events import Done
from agents.chat.question import Question
from agents.providers.wire import _endpoint, _transport
from observability.models import Limit
from observability.rules import limits
from tests.factories import unique
from tests.upstream import Reply


@pytest.fixture
def visits(settings, monkeypatch):
    """Count statements and sends, whichever thread makes them."""
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    monkeypatch.setattr("agents.chat.flights._RENEW_EVERY_S", 600.0)  # a visit by the clock, and none of the turn's
    _endpoint.cache_clear()
    _transport.cache_clear()
    counted: Counter[str] = Counter()
    execute, send = CursorWrapper.execute, redis.connection.AbstractConnection.send_packed_command

    def counting_execute(self: Any, sql: str, params: Any = None) -> Any:
        # Other SELECTs are of settings that are due to be read again.
        counted["statements"] += not sql.lstrip().startswith("SELECT") or "settle_with_budgets" in sql
        return execute(self, sql, params)

    def counting_send(self: Any, command: Any, check_health: bool = True) -> Any:
        counted["round trips"] += 1
        return send(self, command, check_health)

    monkeypatch.setattr(CursorWrapper, "execute", counting_execute)
    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", counting_send)
    yield counted
    _endpoint.cache_clear()
    _transport.cache_clear()


@pytest.fixture
def limited(live_db):
    """Every kind of limit applies to an agent's turns."""
    made = []

    def limited(agent):
        made.append(Limit.objects.create(scope="agent", name=agent.slug, requests_per_minute=100, tokens_per_minute=100_000, concurrent=50))

    limits.forget()
    yield limited
    for limit in made:
        limit.delete()
    limits.forget()


def visits_of(agent, message, counted):
    """Ask `message` when all is warm ("again": asked before); return the answer, and what it took."""

    async def run():
        async def ask(text):
            question = Question(agent=agent.slug, message=text, caller=anonymous("::1"), address=unique("address"))
            return [event async for event in answer(question)][-1]

        try:
            for warming in (f"warm up {unique('message')}", message if message == "again" else f"warm up {unique('message')}"):
                await ask(warming)
            counted.clear()
            return await ask(message), Counter(counted)
        finally:
            await _transport().aclose()

    done, counts = asyncio.run(run())
    assert isinstance(done, Done)
    return done, counts


def test_an_uncached_turn(make_chat_agent, upstream, limited, visits):
    upstream.script(Reply())
    agent = make_chat_agent(upstream, reply_cache_s=60)
    limited(agent)
    done, counts = visits_of(agent, "new", visits)
    assert not done.cached
    # Opened: person, conversation and turn together, attempt. Closed: turn, attempt, what budgets had promised.
    # Redis: limits, a look for the answer, places and tokens, the answer to keep.
    assert counts == {"statements": 5, "round trips": 4}


def test_a_cached_turn(make_chat_agent, upstream, limited, visits):
    upstream.script(Reply())
    agent = make_chat_agent(upstream, reply_cache_s=60)
    limited(agent)
    done, counts = visits_of(agent, "again", visits)
    assert done.cached
    assert len(upstream.calls) == 2
    # Person, conversation and turn together; its end and a line in the ledger together. Redis: limits, the answer, the place.
    assert counts == {"statements": 2, "round trips": 3}


def test_without_limits_and_cache_nothing_is_asked_of_redis(make_chat_agent, upstream, visits):
    upstream.script(Reply())
    _, counts = visits_of(make_chat_agent(upstream), "new", visits)
    assert counts["round trips"] == 0
    assert counts["statements"] == 5
