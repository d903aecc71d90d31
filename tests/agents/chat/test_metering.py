"""The meter: what is promised is made or given back, whatever happens meanwhile, and no call that may have cost counts as nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from uuid_utils.compat import uuid7

from agents.access import editor
from agents.chat.answer import answer
from agents.chat.events import Started
from agents.chat.metering import Meter
from agents.chat.question import Question
from agents.chat.refusals import BudgetBusy, BudgetSpent, error_of
from agents.providers.base import UpstreamFailed, Usage
from agents.providers.wire import _endpoint, _transport
from agents.versions.live import load_draft
from observability.api import AttemptKind, AttemptOutcome, NewAttempt, Price, Refusal, run_burst
from observability.budgets import budgets_now
from observability.models import Attempt, Budget, BudgetPeriod, Limit, ModelPrice
from observability.prices import price_list
from tests.factories import make_user, unique
from tests.upstream import Reply

pytestmark = pytest.mark.django_db(transaction=True)

PRICE = Price(input_usd=Decimal(1000), output_usd=Decimal(1000))
LATER = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.fixture
def choice(upstream, make_chat_agent):
    choice = load_draft(make_chat_agent(upstream, published=False).slug).choices[0]
    price = {"input_usd": PRICE.input_usd, "output_usd": PRICE.output_usd, "effective_from": datetime(2026, 1, 1, tzinfo=UTC)}
    ModelPrice.objects.create(provider=choice.provider.slug, model=choice.model, **price)
    price_list.forget()
    return choice


def template(choice, **fields):
    now = datetime.now(UTC)
    return NewAttempt(
        **{
            "id": uuid7(), "kind": AttemptKind.CHAT, "turn_id": uuid7(), "agent": unique("agent"), "provider": choice.provider.slug,
            "model": choice.model, "price": PRICE, "started_at": now, "deadline_at": now + timedelta(minutes=1),
            "worst_prompt_tokens": 1000, "worst_completion_tokens": 1000, **fields,
        }
    )  # fmt: skip


def test_a_call_whose_usage_nobody_knows_is_an_estimate(choice):
    async def run():
        meter = Meter(template(choice), prompt_tokens=1000, opened=True)
        meter.messages = [{"role": "user", "content": "What are your opening hours?"}]
        await meter.begin(choice)
        meter.left()
        return await meter.settle_as(AttemptOutcome.CANCELLED, usage=None)

    [attempt] = asyncio.run(run())
    assert (attempt.outcome, attempt.is_estimated) == (AttemptOutcome.CANCELLED, True)
    assert attempt.prompt_tokens > 5
    assert attempt.cost_usd == Decimal(attempt.prompt_tokens) / 1000


@pytest.mark.parametrize(("is_billable", "outcome"), [(True, "failed"), (False, "failed")])
def test_a_refused_call_costs_nothing_and_one_that_broke_off_is_estimated(choice, is_billable, outcome):
    async def run():
        meter = Meter(template(choice), prompt_tokens=1000, opened=True)
        meter.messages = [{"role": "user", "content": "Hi"}]
        await meter.begin(choice)
        meter.failed(UpstreamFailed("no", retryable=True, is_billable=is_billable))
        await meter.begin(choice)
        return await meter.settle_as(AttemptOutcome.DONE, usage=Usage(11, 7))

    first, second = asyncio.run(run())
    assert (first.outcome, first.is_estimated) == (outcome, is_billable)
    assert (first.cost_usd > 0) == is_billable
    assert (second.cost_usd, second.is_estimated) == (Decimal("0.018"), False)


def test_what_was_promised_and_never_made_is_given_back(choice):
    async def run():
        meter = Meter(template(choice), prompt_tokens=1000, opened=True)
        return await meter.settle_as(AttemptOutcome.FAILED, usage=Usage(0, 0)), await meter.settle_as(AttemptOutcome.DONE, usage=None)

    once, again = asyncio.run(run())
    assert [(attempt.outcome, attempt.cost_usd) for attempt in once] == [(AttemptOutcome.CANCELLED, 0)]
    assert once == again


def test_who_is_cancelled_while_a_promise_is_made_still_gives_it_back(choice):
    first = template(choice)
    budget = Budget.objects.create(name=unique("budget"), scope="agent", agent=first.agent, limit_usd=Decimal(10))
    budgets_now.forget()

    async def run():
        meter = Meter(first, prompt_tokens=1000, opened=False)
        beginning = asyncio.create_task(meter.begin(choice))
        while meter._asking is None:  # noqa: ASYNC110 - it is about the moment in between
            await asyncio.sleep(0)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        return await meter.settle_as(AttemptOutcome.CANCELLED, usage=None)

    from agents.chat.bursts import settling

    async def run_and_settle():
        ended = await run()
        for attempt in ended:
            await settling.submit(attempt)
        return ended

    ended = asyncio.run(run_and_settle())
    assert [attempt.outcome for attempt in ended] == [AttemptOutcome.CANCELLED]
    assert not Attempt.objects.filter(agent=first.agent, outcome="running").exists()
    period = BudgetPeriod.objects.get(budget=budget)
    assert (period.reserved_tokens, period.spent_tokens) == (0, 0)


def test_a_budget_made_while_a_turn_runs_holds_for_all_calls_of_a_batch(choice):
    """Also where a further attempt of a turn that began before is the first of them."""
    old, new = template(choice), template(choice)

    async def run():
        budgets_now.forget()
        await budgets_now.get()
        meters = [Meter(attempt, prompt_tokens=1000, opened=False) for attempt in (old, new)]
        limit = await run_burst(Budget.objects.create, name=unique("budget"), scope="agent", agent=new.agent, limit_tokens=10**9)
        budgets_now.forget()  # a second later
        await asyncio.gather(*(meter.begin(choice) for meter in meters))
        return limit

    budget = asyncio.run(run())
    assert {attempt.agent for attempt in Attempt.objects.filter(outcome="running")} >= {old.agent, new.agent}
    assert BudgetPeriod.objects.get(budget=budget).reserved_tokens > 0


def test_refusals_say_what_to_do():
    spent = error_of(Refusal(budget="team", resets_at=LATER, is_spent=True))
    assert isinstance(spent, BudgetSpent)
    assert "2099-01-01" in spent.detail
    assert spent.retry_after_s > 0
    busy = error_of(Refusal(budget="team", resets_at=LATER, is_spent=False))
    assert isinstance(busy, BudgetBusy)
    assert (busy.status, busy.retry_after_s) == (429, 5)
    assert error_of(Refusal(budget="team", resets_at=LATER, is_spent=True, unpriced=True)).status == 402


def test_who_tries_a_draft_is_not_limited_but_in_the_ledger_and_never_cached(upstream, make_chat_agent, settings):
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    _endpoint.cache_clear()
    _transport.cache_clear()
    upstream.script(Reply("one"), Reply("two"))
    agent = make_chat_agent(upstream, published=False, reply_cache_s=60)
    limit = Limit.objects.create(scope="agent", name=agent.slug, requests_per_minute=1)
    question = Question(agent=agent.slug, message="Hi", caller=editor(make_user(role="editor").pk), draft=True)

    async def run():
        try:
            return [[event async for event in answer(question)] for _ in range(2)]
        finally:
            await _transport().aclose()

    try:
        turns = asyncio.run(run())
    finally:
        limit.delete()
        _transport.cache_clear()
    assert [events[-1].reply for events in turns] == ["one", "two"]
    assert all(isinstance(events[0], Started) and not events[0].headers for events in turns)
    assert [attempt.outcome for attempt in Attempt.objects.filter(agent=agent.slug)] == ["done", "done"]
