"""What is counted of a turn, and that labels stay few."""

import asyncio
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest
from prometheus_client import REGISTRY, Counter
from uuid_utils.compat import uuid7

from observability import metrics
from observability.counting import count_recall, count_response, count_turn, open_stream, show_breaker
from observability.ledger import SettledAttempt
from observability.metrics import Series
from observability.models import AttemptOutcome, SavedBy
from observability.prices import Price
from tests.factories import unique


@dataclass(frozen=True)
class Turn:
    agent: str
    outcome: str = "done"
    streamed: bool = True
    latency_ms: int = 3000
    first_token_ms: int | None = 500
    error_code: str = ""
    refused_by: str = ""
    looked_up: bool = False
    cached: bool = False
    attempts: tuple = ()
    saved_usd: Decimal = Decimal(0)
    saved_by: SavedBy = SavedBy.NOTHING


@pytest.fixture
def agent():
    return unique("agent")


def attempt(outcome=AttemptOutcome.DONE, **fields):
    values = {
        "provider": "vendor",
        "model": "large",
        "latency_ms": 2900,
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 25,
    }
    price = Price(input_usd=Decimal(1), output_usd=Decimal(10))
    return SettledAttempt(id=uuid7(), outcome=outcome, **{**values, "price": price, **fields})


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels)


def test_a_turn_counts_once_with_its_tokens_cost_and_times(agent):
    count_turn(Turn(agent, attempts=(attempt(),)))
    assert value("chatbot_messages_total", agent=agent, outcome="done") == 1
    kinds = {
        kind: value("chatbot_tokens_total", agent=agent, model="large", kind=kind) for kind in ("prompt", "cached_prompt", "completion")
    }
    assert kinds == {"prompt": 60, "cached_prompt": 40, "completion": 25}
    assert value("chatbot_cost_usd_total", agent=agent, model="large") == pytest.approx((100 + 250) / 1_000_000)
    assert value("chatbot_request_duration_seconds_sum", agent=agent, mode="stream") == 3
    assert value("chatbot_time_to_first_token_seconds_sum", agent=agent) == 0.5
    assert value("chatbot_tokens_per_second_sum", agent=agent) == 10  # 25 tokens within 2.5 seconds
    assert value("chatbot_saved_usd_total", agent=agent, by="cache") is None


def test_retries_and_fallbacks_are_told_apart(agent):
    one, other = unique("provider"), unique("provider")
    failed = attempt(AttemptOutcome.FAILED, provider=one, prompt_tokens=None, cached_tokens=None, completion_tokens=None)
    never_made = SettledAttempt(id=uuid7(), outcome=AttemptOutcome.CANCELLED)
    count_turn(Turn(agent, attempts=(failed, failed, never_made, attempt(provider=other))))
    assert value("chatbot_upstream_attempts_total", provider=one, model="large", outcome="failed") == 2
    assert value("chatbot_upstream_attempts_total", provider=other, model="large", outcome="done") == 1
    assert value("chatbot_upstream_retries_total", provider=one) == 1
    assert value("chatbot_fallbacks_total", provider=one) == 1
    assert value("chatbot_upstream_retries_total", provider=other) is None


def test_a_kept_answer_is_a_hit_and_what_it_saved(agent):
    before = {result: value("chatbot_cache_requests_total", cache="reply", result=result) for result in ("hit", "miss")}
    count_turn(Turn(agent, looked_up=True, cached=True, saved_usd=Decimal("0.25"), saved_by=SavedBy.CACHE))
    count_turn(Turn(agent, looked_up=True, attempts=(attempt(),)))
    count_turn(Turn(agent, attempts=(attempt(),)))  # was not to be kept
    after = {result: value("chatbot_cache_requests_total", cache="reply", result=result) for result in ("hit", "miss")}
    assert {result: after[result] - before[result] for result in after} == {"hit": 1, "miss": 1}
    assert value("chatbot_saved_usd_total", agent=agent, by="cache") == 0.25
    assert value("chatbot_time_to_first_token_seconds_count", agent=agent) == 2


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"outcome": "refused", "error_code": "rate-limited", "refused_by": "session"}, "rate_limit_session"),
        ({"outcome": "failed", "error_code": "budget-spent"}, "budget_spent"),
        ({"outcome": "failed", "error_code": "budget-busy"}, "budget_busy"),
        ({"outcome": "failed", "error_code": "price-unknown"}, "price_unknown"),
    ],
)
def test_what_a_limit_refuses_is_no_failure(agent, turn, reason):
    before = value("chatbot_refusals_total", reason=reason)
    count_turn(replace(Turn(agent, first_token_ms=None), **turn))
    assert value("chatbot_refusals_total", reason=reason) == before + 1
    assert value("chatbot_messages_total", agent=agent, outcome="refused") == 1
    assert value("chatbot_messages_total", agent=agent, outcome="failed") is None
    assert value("chatbot_request_duration_seconds_count", agent=agent, mode="stream") is None


def test_an_unknown_price_costs_nothing_that_is_known(agent):
    count_turn(Turn(agent, attempts=(attempt(price=None),)))
    assert value("chatbot_tokens_total", agent=agent, model="large", kind="completion") == 25
    assert value("chatbot_cost_usd_total", agent=agent, model="large") is None


def test_recalls_are_counted_and_timed():
    before = value("chatbot_recalls_total", result="slow"), value("chatbot_recall_duration_seconds_sum")
    count_recall("slow", seconds=0.25)
    assert (value("chatbot_recalls_total", result="slow"), value("chatbot_recall_duration_seconds_sum")) == (
        before[0] + 1,
        before[1] + 0.25,
    )


async def _streaming():
    async with open_stream():
        return value("chatbot_open_streams")


def test_a_stream_is_open_until_it_ends():
    before = value("chatbot_open_streams")
    assert asyncio.run(_streaming()) == before + 1
    assert value("chatbot_open_streams") == before


def test_a_breaker_is_shown():
    labels = {"provider": unique("provider"), "model": "large"}
    for state in (2, 1, 0):
        show_breaker(**labels, state=state)
        assert value("chatbot_breaker_state", **labels) == state


def test_methods_and_routes_that_a_caller_makes_up_are_no_labels():
    before = value("chatbot_http_responses_total", route="other", method="other", status="404") or 0
    count_response(route="", method="BREW", status=404)
    assert value("chatbot_http_responses_total", route="other", method="other", status="404") == before + 1


def test_a_metric_has_so_many_series_at_most(monkeypatch):
    monkeypatch.setattr(metrics, "_MOST_SERIES", 3)
    counter = Counter("test_bounded_total", "Of this test.", ["a", "b"], registry=None)
    series = Series(counter, ("a", "b"), ())
    for number in range(10):
        series.of(str(number), "b").inc()
    found = {tuple(sample.labels.values()): sample.value for sample in counter.collect()[0].samples}
    assert found == {("0", "b"): 1, ("1", "b"): 1, ("2", "b"): 1, ("other", "other"): 7}
