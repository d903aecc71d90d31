"""Alerts of budgets: each step of 50, 80 and 100 % once for each period, the steps above a raised limit anew."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from uuid_utils.compat import uuid7

from observability.models import Budget, BudgetPeriod, Incident

from .conftest import look_at
from .spending import spend

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _budgets_alone(only):
    only("budget")


def make_budget(**fields):
    return Budget.objects.create(**{"name": f"budget {uuid7()}", "limit_usd": Decimal(10), **fields})


def told():
    """What is told now: each text's first sentence."""
    return [(str(change.telling), change.text.split(". ")[0]) for change in look_at()]


def test_each_step_is_told_once():
    make_budget(name="Web shop", time_zone="Europe/Berlin")
    spend("4.99")
    assert told() == []
    spend("0.01")
    assert (told(), told()) == ([("opened", "Budget “Web shop”: 50 % is spent (5.00 of 10.00 USD)")], [])
    assert "00:00 (Europe/Berlin)" in Incident.objects.get().text
    spend("2")
    assert told() == []
    spend("1")
    assert (told(), told()) == ([("worse", "Budget “Web shop”: 80 % is spent (8.00 of 10.00 USD)")], [])
    spend("2")
    assert (told(), told()) == ([("worse", "Budget “Web shop”: 100 % is spent (10.00 of 10.00 USD)")], [])


def test_several_steps_at_once_are_one_notice():
    make_budget()
    spend("9")
    [(telling, text)] = told()
    assert telling == "opened"
    assert ": 80 % is spent" in text


def test_a_budget_that_refuses_calls_counts_as_spent():
    make_budget()
    spend("8.5")
    assert len(told()) == 1
    assert spend("2").is_spent
    [(telling, text)] = told()
    assert telling == "worse"
    assert "calls are refused now (8.50 of 10.00 USD)" in text
    assert spend("2").is_spent
    assert told() == []


def test_a_raised_limit_is_told_of_anew():
    budget = make_budget()
    spend("8.5")
    spend("2")
    assert len(told()) == 1
    budget.limit_usd = Decimal(16)
    budget.save()
    assert spend("2") is None
    assert told() == [], "down a step, which nobody needs to hear"
    assert Incident.objects.get().level == 50
    spend("3")
    [(telling, text)] = told()
    assert telling == "worse"
    assert ": 80 % is spent (13.50 of 16.00 USD)" in text


def test_a_limit_raised_far_is_the_end_of_it():
    budget = make_budget(name="Web shop")
    spend("9")
    assert len(told()) == 1
    budget.limit_usd = Decimal(100)
    budget.save()
    assert told() == [("resolved", "Budget “Web shop”: has begun anew, or its limit was changed (after 1 min).")]


def test_a_new_period_is_the_end_of_the_last_ones_incident():
    make_budget(period="day")
    spend("9")
    assert len(told()) == 1
    tomorrow = BudgetPeriod.objects.get().ends_at + timedelta(seconds=1)
    [change] = look_at(tomorrow)
    assert change.telling == "resolved"
    assert look_at(tomorrow) == []


def test_tokens_count_and_each_person_by_themselves():
    make_budget(scope="user", limit_usd=None, limit_tokens=1000)
    spend("0", tokens=500, subject_id=3)
    spend("0", tokens=900, subject_id=4)
    assert sorted(text.partition("” ")[2] for _, text in told()) == [
        "of person #3: 50 % is spent (500 of 1,000 tokens)",
        "of person #4: 80 % is spent (900 of 1,000 tokens)",
    ]


def test_the_first_step_is_a_matter_of_the_rule(only):
    only("budget", threshold=80)
    make_budget()
    spend("6")
    assert told() == []
    spend("2")
    assert len(told()) == 1


def test_a_budget_that_is_switched_off_is_over():
    budget = make_budget()
    spend("9")
    assert len(told()) == 1
    budget.is_active = False
    budget.save()
    [(telling, _)] = told()
    assert telling == "resolved"


def test_more_people_than_are_looked_at_end_no_incidents(monkeypatch):
    make_budget(scope="user")
    for person in range(1, 4):
        spend("6", subject_id=person)
    assert len(told()) == 3
    for module in ("finding", "incidents"):
        monkeypatch.setattr(f"observability.alerts.{module}.MOST", 2)
    assert told() == []
    assert Incident.objects.filter(resolved_at=None).count() == 3
