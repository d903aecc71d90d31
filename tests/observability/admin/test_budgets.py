"""Budgets in the admin: made in plain words, seen with what is spent, raised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from django.test import Client
from uuid_utils.compat import uuid7

from observability.admin.figures import per_million
from observability.budgets import Claim, active_budgets, reserve, settle_reservations
from observability.ledger import NewAttempt, SettledAttempt, open_attempts, settle_attempts
from observability.models import AttemptKind, AttemptOutcome, Budget, BudgetPeriod
from observability.money import usd
from observability.prices import Price
from tests.factories import make_agent, make_key, make_key_owner

pytestmark = pytest.mark.django_db

LIST = "/admin/observability/budget/"
DOLLAR_A_MILLION = Price(input_usd=Decimal(1), output_usd=Decimal(1))


def form(**changed):
    whole = {
        "name": "Web shop",
        "is_active": "on",
        "scope": "all",
        "agent": "",
        "key": "",
        "period": "month",
        "time_zone": "UTC",
        "limit_usd": "5",
        "limit_tokens": "",
        "on_unknown_price": "refuse",
        "cheaper_at": "",
    }
    return whole | changed


def spend(usd, *, key="", agent="helper", promised=False):
    """Make a call that costs so much, or that is still under way."""
    now = datetime.now(UTC)
    new = NewAttempt(
        id=uuid7(), kind=AttemptKind.CHAT, agent=agent, key=key, started_at=now, deadline_at=now + timedelta(minutes=1),
        price=DOLLAR_A_MILLION, worst_prompt_tokens=int(Decimal(usd) * 1_000_000), worst_completion_tokens=0,
    )  # fmt: skip
    claim = Claim(attempt_id=new.id, agent=agent, key=key, subject_id=0, usd=Decimal(usd), tokens=1, at=now)
    with transaction.atomic():
        open_attempts([new])
        assert reserve([claim], budgets=active_budgets()) == [None]
        if not promised:
            tokens = new.worst_prompt_tokens
            settle_attempts(
                [SettledAttempt(id=new.id, outcome=AttemptOutcome.DONE, price=DOLLAR_A_MILLION, prompt_tokens=tokens, completion_tokens=0)]
            )


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ("0", "0.00 USD"), ("5", "5.00 USD"), ("1234.567", "1,234.57 USD"), ("0.25", "0.25 USD"), ("0.00012345", "0.0001234 USD"),
        ("0.5", "0.50 USD"), ("0.6098123", "0.6098 USD"),
    ],
)  # fmt: skip
def test_sums_show_what_counts(amount, words):
    assert usd(Decimal(amount)) == words


def test_prices_show_all_their_digits():
    prices = {"2": "2.00", "0.025": "0.025", "10.50000000": "10.50", "0": "0.00", "100": "100.00"}
    assert {price: per_million(Decimal(price)) for price in prices} == prices


def test_a_budget_for_one_key_shows_what_it_spent_before_and_since(operator: Client):
    key = make_key(owner=make_key_owner(name="Web shop"), name="production").key
    spend("1.25", key=key.prefix)
    spend("3")
    page = operator.get(f"{LIST}add/").content.decode()
    assert f"Web shop: production ({key.prefix})" in page
    assert operator.post(f"{LIST}add/", form(scope="key", key=key.prefix)).status_code == 302
    budget = Budget.objects.get()
    assert (budget.scope, budget.key, budget.limit_usd) == ("key", key.prefix, 5)
    spend("0.25", key=key.prefix)
    spend("1", key=key.prefix, promised=True)
    page = operator.get(LIST).content.decode()
    assert "30 %</strong>: 1.50 USD of 5.00 USD" in page
    assert "2.50 USD left, 1.00 USD promised to calls under way" in page
    assert f"API key Web shop: production ({key.prefix})" in page


def test_raising_changes_the_limit_and_nothing_else(operator: Client):
    key = make_key().key
    operator.post(f"{LIST}add/", form(scope="key", key=key.prefix, time_zone="Europe/Berlin"))
    spend("4", key=key.prefix)
    budget = Budget.objects.get()
    page = operator.get(f"{LIST}{budget.pk}/change/").content.decode()
    assert 'value="5"' in page
    assert "month, as in Europe/Berlin" in page
    sent = {"name": "Web shop", "is_active": "on", "limit_usd": "10", "on_unknown_price": "refuse", "scope": "all", "key": ""}
    assert operator.post(f"{LIST}{budget.pk}/change/", sent).status_code == 302
    budget.refresh_from_db()
    assert (budget.limit_usd, budget.scope, budget.key, budget.time_zone) == (10, "key", key.prefix, "Europe/Berlin")
    assert BudgetPeriod.objects.get().spent_usd == 4
    assert "40 %</strong>: 4.00 USD of 10.00 USD" in operator.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"limit_usd": ""}, "Enter a limit in US dollars, in tokens, or both."),
        ({"scope": "agent"}, "Choose the agent."),
        ({"scope": "key"}, "Choose the API key."),
        ({"agent": "helper"}, "A budget for everything holds for any agent."),
        ({"limit_usd": "-1"}, "Enter at least 0."),
        ({"cheaper_at": "120"}, "Enter at most 100."),
        ({"time_zone": "Mars/Base"}, "Select a valid choice."),
    ],
)
def test_a_wrong_form_keeps_what_was_typed(operator: Client, wrong, sentence):
    make_agent(slug="helper")
    answer = operator.post(f"{LIST}add/", form(name="Half-typed", limit_tokens="777" if "limit_usd" not in wrong else "", **wrong))
    page = answer.content.decode()
    assert answer.status_code == 200
    assert not Budget.objects.exists()
    assert sentence in page
    assert 'value="Half-typed"' in page


def test_a_budget_that_was_off_counts_what_it_missed(operator: Client):
    operator.post(f"{LIST}add/", form())
    budget = Budget.objects.get()
    spend("1")
    change = {"name": "Web shop", "limit_usd": "5", "on_unknown_price": "refuse"}
    operator.post(f"{LIST}{budget.pk}/change/", change)
    spend("2")
    assert BudgetPeriod.objects.get().spent_usd == 1
    operator.post(f"{LIST}{budget.pk}/change/", change | {"is_active": "on"})
    assert BudgetPeriod.objects.get().spent_usd == 3


def test_of_each_end_user_the_furthest_is_shown(operator: Client):
    budget = Budget.objects.create(name="Each", scope="user", limit_usd=2)
    for person, sum_ in ((7, "0.5"), (8, "1.5")):
        claim = Claim(attempt_id=uuid7(), agent="a", key="", subject_id=person, usd=Decimal(sum_), tokens=1, at=datetime.now(UTC))
        reserve([claim], budgets=[budget])
        settle_reservations({claim.attempt_id: (Decimal(sum_), 1)})
    page = operator.get(LIST).content.decode()
    assert "75 %</strong>: 1.50 USD of 2.00 USD" in page
    assert "person #8, who spent most of 2 people" in page
    page = operator.get(f"{LIST}{budget.pk}/change/").content.decode()
    assert "The furthest of 2 people" in page


def test_without_budgets_the_list_says_what_that_means(operator: Client):
    assert "Without one, any sum may be spent." in operator.get(LIST).content.decode()


def test_earlier_periods_stay_to_be_read(operator: Client):
    budget = Budget.objects.create(name="All", limit_usd=2)
    began = datetime(2025, 1, 1, tzinfo=UTC)
    BudgetPeriod.objects.create(budget=budget, starts_at=began, ends_at=began + timedelta(days=31), spent_usd=Decimal("1.99"))
    page = operator.get(f"{LIST}{budget.pk}/change/").content.decode()
    assert "Earlier periods" in page
    assert "01 Jan 2025, 00:00" in page
    assert "1.99 USD" in page
