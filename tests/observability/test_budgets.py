"""Budgets: what is promised, what is spent, and that both together never exceed the limit."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction
from uuid_utils.compat import uuid7

from observability.budgets import Claim, active_budgets, reserve, settle_reservations
from observability.ledger import NewAttempt, SettledAttempt, open_attempts, settle_attempts
from observability.models import Attempt, AttemptKind, AttemptOutcome, Budget, BudgetPeriod, Reservation
from observability.orphans import settle_orphans
from observability.periods import period_of
from observability.prices import Price

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DOLLAR_A_MILLION = Price(input_usd=Decimal(1), output_usd=Decimal(1))


def make_budget(**fields):
    return Budget.objects.create(**{"name": f"budget {uuid7()}", "limit_usd": Decimal(10), **fields})


def claim(usd="1", **fields):
    return Claim(
        **{
            "attempt_id": uuid7(), "agent": "helper", "key": "k7", "subject_id": 3,
            "usd": None if usd is None else Decimal(usd), "tokens": 100, "at": NOW, **fields,
        }
    )  # fmt: skip


def ask(*claims):
    with transaction.atomic():
        return reserve(claims, budgets=active_budgets())


def period(budget):
    return BudgetPeriod.objects.get(budget=budget)


def test_without_budgets_everything_is_granted_and_nothing_written():
    assert ask(claim("1000000")) == [None]
    assert Reservation.objects.count() == BudgetPeriod.objects.count() == 0


def test_a_promise_is_turned_into_what_was_spent():
    budget = make_budget()
    asked = claim("4")
    assert ask(asked) == [None]
    assert (period(budget).reserved_usd, period(budget).spent_usd) == (4, 0)
    settle_reservations({asked.attempt_id: (Decimal("1.5"), 40)})
    row = period(budget)
    assert (row.reserved_usd, row.spent_usd, row.reserved_tokens, row.spent_tokens) == (0, Decimal("1.5"), 0, 40)
    settle_reservations({asked.attempt_id: (Decimal("1.5"), 40)})  # a second time changes nothing
    assert period(budget).spent_usd == Decimal("1.5")


def test_what_settles_lower_frees_its_rest_at_once():
    make_budget(limit_usd=Decimal(10))
    first, second = claim("9"), claim("9")
    assert ask(first) == [None]
    [refusal] = ask(second)
    assert not refusal.is_spent, "waiting may help: nothing is spent yet"
    settle_reservations({first.attempt_id: (Decimal("0.5"), 1)})
    assert ask(second) == [None]


def test_what_is_spent_refuses_for_good_and_says_when_it_resets():
    budget = make_budget(limit_usd=Decimal(2), period="month", time_zone="Europe/Berlin")
    first = claim("2")
    ask(first)
    settle_reservations({first.attempt_id: (Decimal(2), 1)})
    [refusal] = ask(claim("0.01"))
    assert refusal.is_spent
    assert refusal.budget == budget.name
    assert refusal.resets_at == datetime(2026, 12, 1, tzinfo=ZoneInfo("Europe/Berlin"))


def test_all_budgets_that_apply_promise_or_none():
    whole, agent = make_budget(limit_usd=Decimal(100)), make_budget(scope="agent", agent="helper", limit_usd=Decimal(1))
    assert ask(claim("2"))[0].budget == agent.name
    assert period(whole).reserved_usd == 0
    assert ask(claim("2", agent="another")) == [None]
    assert period(whole).reserved_usd == 2


def test_each_user_has_a_period_of_its_own_and_keys_only_theirs():
    make_budget(scope="user", limit_usd=Decimal(1))
    assert ask(claim(subject_id=1), claim(subject_id=2)) == [None, None]
    assert ask(claim(subject_id=1))[0] is not None
    Budget.objects.all().delete()
    make_budget(scope="key", key="k7", limit_usd=Decimal(1))
    assert ask(claim("2", key="k8")) == [None]
    assert ask(claim("2", key="k7"))[0] is not None


def test_a_budget_that_is_gone_or_off_by_now_refuses_nothing_and_breaks_nothing():
    """A process knows of that within a second."""
    gone, off = make_budget(limit_usd=Decimal(1)), make_budget(limit_usd=Decimal(1))
    known = active_budgets()
    gone.delete()
    Budget.objects.filter(pk=off.pk).update(is_active=False)
    with transaction.atomic():
        assert reserve([claim("5")], budgets=known) == [None]
    assert BudgetPeriod.objects.count() == Reservation.objects.count() == 0


def test_tokens_are_a_budget_too():
    make_budget(limit_usd=None, limit_tokens=250)
    assert [refusal is None for refusal in ask(claim(), claim(), claim())] == [True, True, False]


def test_what_costs_nothing_is_never_refused():
    make_budget(limit_usd=Decimal(0))
    assert ask(claim("0")) == [None]


def test_an_unknown_price_is_refused_or_allowed_as_the_owner_chose():
    budget = make_budget()
    assert ask(claim(None))[0].unpriced
    Budget.objects.filter(pk=budget.pk).update(on_unknown_price="allow")
    assert ask(claim(None)) == [None]


def test_a_new_budget_knows_what_the_period_has_cost_so_far():
    turn = open_attempt(price=DOLLAR_A_MILLION)
    settle_attempts(
        [SettledAttempt(id=turn, outcome=AttemptOutcome.DONE, prompt_tokens=2_000_000, completion_tokens=0, price=DOLLAR_A_MILLION)]
    )
    budget = make_budget(limit_usd=Decimal(3))
    assert ask(claim("2"))[0].is_spent
    assert period(budget).spent_usd == 2
    assert ask(claim("1")) == [None]


def open_attempt(**fields):
    attempt = NewAttempt(
        **{
            "id": uuid7(), "turn_id": uuid7(), "kind": AttemptKind.CHAT, "agent": "helper", "key": "k7", "started_at": NOW,
            "deadline_at": NOW + timedelta(minutes=1), "price": None, "worst_prompt_tokens": 1000, "worst_completion_tokens": 500, **fields,
        }
    )  # fmt: skip
    open_attempts([attempt])
    return attempt.id


def test_orphans_are_settled_at_their_worst_and_flagged():
    budget = make_budget(limit_usd=Decimal(1))
    attempt = open_attempt(price=DOLLAR_A_MILLION, deadline_at=datetime.now(UTC) - timedelta(seconds=1))
    ask(claim("0.0015", attempt_id=attempt, tokens=1500))
    assert settle_orphans() == 1
    row = Attempt.objects.get(pk=attempt)
    assert (row.outcome, row.is_estimated, row.cost_usd) == ("orphaned", True, Decimal("0.0015"))
    assert (period(budget).reserved_usd, period(budget).spent_usd) == (0, Decimal("0.0015"))
    assert settle_orphans() == 0
    assert settle_attempts([SettledAttempt(id=attempt, outcome=AttemptOutcome.DONE)]) == [False], "settled once"


@pytest.mark.parametrize("seed", range(3))
def test_sixty_four_at_once_on_a_budget_for_ten_spend_no_more(seed):
    print(f"seed {seed}")
    chance = random.Random(seed)
    limit = make_budget(limit_usd=Decimal(10))
    agents = [make_budget(scope="agent", agent=f"agent-{number}", limit_usd=Decimal(6)) for number in range(3)]
    barrier = Barrier(16)

    def spend(numbers):
        granted = 0
        barrier.wait()
        try:
            for number in numbers:
                claims = [claim("1", agent=f"agent-{(number + offset) % 3}") for offset in range(2)]
                for asked, refusal in zip(claims, ask(*claims), strict=True):
                    if refusal is None:
                        granted += 1
                        with transaction.atomic():
                            settle_reservations({asked.attempt_id: (Decimal(1), 1)})
        finally:
            connection.close()
        return granted

    order = chance.sample(range(64), 64)
    with ThreadPoolExecutor(16) as pool:
        granted = sum(pool.map(spend, [order[place::16] for place in range(16)]))
    assert granted == 10
    row = period(limit)
    assert (row.spent_usd, row.reserved_usd) == (10, 0)
    assert sum(period(budget).spent_usd for budget in agents) == 10
    assert Reservation.objects.count() == 0


@pytest.mark.parametrize(
    ("every", "zone", "at", "first", "hours"),
    [
        ("day", "UTC", NOW, datetime(2026, 11, 22, tzinfo=UTC), 24),
        ("day", "Europe/Berlin", datetime(2026, 10, 25, 12, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC), 25),
        ("day", "Europe/Berlin", datetime(2026, 3, 28, 23, 30, tzinfo=UTC), datetime(2026, 3, 28, 23, tzinfo=UTC), 23),
        ("week", "UTC", NOW, datetime(2026, 11, 16, tzinfo=UTC), 7 * 24),
        ("month", "America/New_York", datetime(2026, 12, 1, 3, tzinfo=UTC), datetime(2026, 11, 1, 4, tzinfo=UTC), 30 * 24 + 1),
        ("month", "UTC", datetime(2026, 12, 31, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC), 31 * 24),
    ],
)
def test_periods_begin_at_the_owners_midnight(every, zone, at, first, hours):
    starts_at, ends_at = period_of(Budget(period=every, time_zone=zone), at)
    assert starts_at == first
    assert (ends_at.astimezone(UTC) - starts_at.astimezone(UTC)) == timedelta(hours=hours)
    assert starts_at <= at < ends_at
