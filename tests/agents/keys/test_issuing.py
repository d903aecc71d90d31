"""Making, rotating and revoking keys."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, connections
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from uuid_utils.compat import uuid7

from agents.access.issuing import NotRotatable, revoke_key, rotate_key
from agents.models import ApiKey
from observability.api import budgets_of_key, find_payers
from observability.budgets import Claim, active_budgets, begin_period, reserve
from observability.models import Budget, BudgetPeriod, Limit, SharedBudget
from observability.succession import payers_of
from tests.factories import make_agent, make_key
from tests.ledger import spend

DAY = timedelta(days=1)


def test_a_successor_opens_the_same_while_the_old_key_goes_on(db: None) -> None:
    agents = [make_agent(), make_agent()]
    old = make_key(*agents, scopes=("chat", "erase"), name="shop").key
    issued = rotate_key(old, overlap=DAY)
    new = issued.key
    old.refresh_from_db()
    assert (new.name, new.owner, new.scopes, new.replaces, new.expiry_date) == ("shop", old.owner, ["chat", "erase"], old, None)
    assert set(new.agents.all()) == set(agents)
    assert new.is_valid(issued.secret)
    assert not old.is_valid(issued.secret)
    assert old.is_usable()
    assert not old.is_usable(at=timezone.now() + DAY)


def test_a_key_for_a_while_has_a_successor_for_as_long(db: None) -> None:
    old = make_key(all_agents=True, expires_at=timezone.now() + 30 * DAY).key
    ApiKey.objects.filter(pk=old.pk).update(created=timezone.now() - 60 * DAY)
    new = rotate_key(old, overlap=7 * DAY).key
    old.refresh_from_db()
    assert new.all_agents
    assert abs(new.expiry_date - timezone.now() - 90 * DAY) < timedelta(minutes=1)
    assert abs(old.expiry_date - timezone.now() - 7 * DAY) < timedelta(minutes=1)


def test_the_overlap_never_lengthens_a_keys_life(db: None) -> None:
    old = make_key(expires_at=timezone.now() + timedelta(hours=1)).key
    ends_at = old.expiry_date
    rotate_key(old, overlap=DAY)
    old.refresh_from_db()
    assert old.expiry_date == ends_at


def test_what_ended_or_was_rotated_is_not_rotated(db: None) -> None:
    revoked, expired, rotated = make_key().key, make_key(expires_at=timezone.now() - DAY).key, make_key().key
    revoke_key(revoked)
    successor = rotate_key(rotated, overlap=DAY).key
    for key, reason in ((revoked, "revoked or expired"), (expired, "revoked or expired"), (rotated, successor.prefix)):
        with pytest.raises(NotRotatable, match=reason):
            rotate_key(key, overlap=DAY)


def test_two_who_rotate_at_once_make_one_successor(live_db: None) -> None:
    key = make_key().key

    def rotate(_: int) -> str:
        try:
            return rotate_key(key, overlap=DAY).key.prefix
        except NotRotatable:
            return ""
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        made = [prefix for prefix in pool.map(rotate, range(4)) if prefix]
    assert [successor.prefix for successor in ApiKey.objects.filter(replaces=key)] == made


def test_revoking_cannot_be_taken_back(db: None) -> None:
    key = make_key().key
    revoke_key(key)
    stored = ApiKey.objects.get(pk=key.pk)
    stored.revoked = False
    with pytest.raises(ValidationError, match="cannot be undone"):
        stored.save()


def test_the_primary_key_holds_nothing_of_the_hash(db: None) -> None:
    key = make_key().key
    assert isinstance(key.pk, int)
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM agents_apikey WHERE prefix = %s", [key.prefix])
        assert cursor.fetchone() == (key.pk,)


def test_a_successor_has_limits_like_the_old_keys(db: None) -> None:
    old = make_key().key
    Limit.objects.create(scope="key", name=old.prefix, requests_per_minute=7)
    new = rotate_key(old, overlap=DAY).key
    assert Limit.objects.get(name=new.prefix).requests_per_minute == 7


def test_a_successor_spends_from_the_old_keys_budgets_also_while_both_work(db: None) -> None:
    old = make_key().key
    budget = Budget.objects.create(name="Web shop", scope="key", key=old.prefix, limit_usd=5)
    each = Budget.objects.create(name="Its users", scope="user", key=old.prefix, limit_usd=4)
    new = rotate_key(old, overlap=DAY).key
    newest = rotate_key(new, overlap=DAY).key
    stranger = make_key().key
    assert _ask("3", key=old.prefix) is None
    assert _ask("2", key=newest.prefix) == "Its users"
    assert _ask("1", key=newest.prefix) is None
    assert _ask("2", key=new.prefix, subject_id=8) == "Web shop"
    assert _ask("2", key=stranger.prefix) is None
    assert not Budget.objects.filter(key__in=[new.prefix, newest.prefix]).exists()
    assert SharedBudget.objects.filter(key__in=[new.prefix, newest.prefix]).count() == 2, "one row for a key, however long the chain"
    assert [found for found, _ in budgets_of_key(newest.prefix)] == [budget]
    assert each.pk not in {found.pk for found, _ in budgets_of_key(stranger.prefix)}


def test_a_process_reads_once_whose_budgets_a_key_spends_from(db: None, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    maker = make_key().key
    made = rotate_key(make_key(maker=maker, owner=maker.owner).key, overlap=DAY).key
    with django_assert_num_queries(1):
        found = payers_of([made.prefix])[made.prefix]
    assert found == {made.prefix, made.replaces.prefix, maker.prefix}
    with django_assert_num_queries(0):
        assert payers_of([made.prefix, made.prefix]) == {made.prefix: found}
        assert asyncio.run(find_payers(made.prefix)) == found


def test_a_new_budget_counts_what_keys_that_share_it_spent(db: None) -> None:
    maker = make_key().key
    made = make_key(maker=maker).key
    spend("2", key=maker.prefix, started_at=timezone.now())
    spend("1", key=made.prefix, started_at=timezone.now())
    spend("4", key=make_key().key.prefix, started_at=timezone.now())
    budget = Budget.objects.create(name="Web shop", scope="key", key=maker.prefix, limit_usd=5)
    begin_period(budget, at=timezone.now())
    assert BudgetPeriod.objects.get(budget=budget).spent_usd == 3


def test_whoever_makes_keys_spends_no_more_with_them(db: None) -> None:
    maker = make_key().key
    Budget.objects.create(name="Maker", scope="key", key=maker.prefix, limit_usd=5)
    made = make_key(maker=maker, owner=maker.owner).key
    Budget.objects.create(name="Made", scope="key", key=made.prefix, limit_usd=2)
    of_made = make_key(maker=made, owner=maker.owner).key
    taken_over = rotate_key(make_key(owner=maker.owner).key, overlap=DAY, maker=maker).key
    assert _ask("3", key=made.prefix) == "Made"
    assert _ask("2", key=of_made.prefix) is None
    assert _ask("1", key=made.prefix) == "Made"
    assert _ask("2", key=taken_over.prefix) is None
    assert _ask("2", key=maker.prefix) == "Maker"
    assert _ask("1", key=maker.prefix) is None


def _ask(usd: str, *, key: str, subject_id: int = 7) -> str | None:
    """Promise a call of `key` so much; return the budget that refuses it."""
    claim = Claim(attempt_id=uuid7(), agent="helper", key=key, subject_id=subject_id, usd=Decimal(usd), tokens=1, at=timezone.now())
    [refusal] = reserve([claim], budgets=[budget for budget in active_budgets() if budget.key])
    return refusal.budget if refusal else None
