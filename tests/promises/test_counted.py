"""What happens to turns on a real server is counted, once."""

import asyncio
from datetime import UTC, datetime
from functools import partial

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from observability.orphans import settle_orphans
from tests.factories import unique
from tests.ledger import open_attempt
from tests.live_server import METRICS_TOKEN
from tests.promises.conftest import RawStream
from tests.upstream import Refusal, Reply
from tests.waiting import eventually


def told_by(client, name, **labels):
    """What /metrics tells: `told_by(client, "chatbot_messages_total", agent="helper", outcome="done")`; 0 where it tells nothing."""
    text = client.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}).text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


@pytest.fixture
def told(api):
    return partial(told_by, api)


def provider_of(agent):
    return agent.live_version.provider.slug


def test_a_retry_and_a_fallback(make_chat_agent, upstream, open_upstream, api, told):
    other = open_upstream()
    agent = make_chat_agent(upstream, fallbacks=[(other, "other-model")])
    upstream.script(Refusal(503), Reply())
    api.post(f"/api/chat/{agent.slug}", json={"message": "Hi"})
    provider = provider_of(agent)
    assert told("chatbot_upstream_retries_total", provider=provider) == 1
    assert told("chatbot_fallbacks_total", provider=provider) == 0
    upstream.script(Refusal(400))
    api.post(f"/api/chat/{agent.slug}", json={"message": "Hi"})
    assert told("chatbot_fallbacks_total", provider=provider) == 1
    assert told("chatbot_upstream_attempts_total", provider=provider, outcome="failed") == 2
    assert told("chatbot_upstream_attempts_total", provider=provider, outcome="done") == 1
    assert told("chatbot_messages_total", agent=agent.slug, outcome="done") == 2


def test_a_kept_answer(make_chat_agent, upstream, priced, start_server):
    agent = make_chat_agent(upstream, reply_cache_s=60)
    priced(agent)
    api = start_server().client()  # one that has not read the prices yet
    told = partial(told_by, api)
    hits = told("chatbot_cache_requests_total", cache="reply", result="hit")
    for _ in range(3):
        api.post(f"/api/chat/{agent.slug}", json={"message": "Hi"})
    assert told("chatbot_cache_requests_total", cache="reply", result="hit") == hits + 2
    assert told("chatbot_messages_total", agent=agent.slug, outcome="done") == 3
    assert told("chatbot_upstream_attempts_total", provider=provider_of(agent)) == 1
    assert told("chatbot_cost_usd_total", agent=agent.slug) == pytest.approx(0.018)
    assert told("chatbot_saved_usd_total", agent=agent.slug, by="cache") == pytest.approx(2 * 0.018)


def test_a_client_that_leaves(make_chat_agent, upstream, server, told):
    upstream.script(Reply(chunks=["tick "], never_ends=True, delay_between_s=0.02))
    agent = make_chat_agent(upstream)

    async def leave_midway():
        stream = RawStream(server.port, f"/api/chat/{agent.slug}", {"message": "Hi", "stream": True})
        await stream.send()
        await stream.read_deltas(2)
        open_streams = await asyncio.to_thread(told, "chatbot_open_streams")
        stream.leave()
        return open_streams

    assert asyncio.run(leave_midway()) == 1
    eventually(lambda: told("chatbot_messages_total", agent=agent.slug, outcome="cancelled") == 1, what="the turn is counted")
    assert told("chatbot_messages_total", agent=agent.slug) == 1
    assert told("chatbot_upstream_attempts_total", provider=provider_of(agent), outcome="cancelled") == 1
    assert told("chatbot_tokens_total", agent=agent.slug, kind="prompt") > 0  # estimated
    eventually(lambda: told("chatbot_open_streams") == 0, what="the stream is open no more")


def test_a_turn_that_breaks(make_chat_agent, upstream, api, told):
    upstream.script(Reply("one two three", cut_after_chunks=1))
    agent = make_chat_agent(upstream)
    api.post(f"/api/chat/{agent.slug}", json={"message": "Hi", "stream": True})
    assert told("chatbot_messages_total", agent=agent.slug, outcome="interrupted") == 1


@pytest.mark.django_db
def test_a_call_that_was_left_behind_counts_once_that_is_committed(django_capture_on_commit_callbacks):
    provider = unique("provider")
    open_attempt(deadline_at=datetime(2020, 1, 1, tzinfo=UTC), provider=provider, agent=provider)
    labels = {"provider": provider, "model": "large", "outcome": "orphaned"}
    with django_capture_on_commit_callbacks(execute=True):
        settle_orphans()
        assert REGISTRY.get_sample_value("chatbot_upstream_attempts_total", labels) is None
    assert REGISTRY.get_sample_value("chatbot_upstream_attempts_total", labels) == 1
    spent = REGISTRY.get_sample_value("chatbot_cost_usd_total", {"agent": provider, "model": "large"})
    assert spent == pytest.approx((1000 + 500) / 1_000_000)
