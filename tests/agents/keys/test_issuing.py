"""Making, rotating and revoking keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, connections
from django.utils import timezone

from agents.access.issuing import NotRotatable, revoke_key, rotate_key
from agents.models import ApiKey
from observability.budgets import begin_period
from observability.models import Budget, BudgetPeriod, Limit
from tests.factories import make_agent, make_key

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


def test_a_successor_takes_over_what_limits_the_old_key(db: None) -> None:
    old, now = make_key().key, timezone.now()
    budget = Budget.objects.create(name="Web shop", scope="key", key=old.prefix, limit_usd=5)
    begin_period(budget, at=now)
    BudgetPeriod.objects.filter(budget=budget).update(spent_usd=3, reserved_usd=1, spent_tokens=30, reserved_tokens=10)
    each = Budget.objects.create(name="Its users", scope="user", key=old.prefix, limit_tokens=100)
    Limit.objects.create(scope="key", name=old.prefix, requests_per_minute=7)
    Budget.objects.create(name="Everything", limit_usd=100)

    new = rotate_key(old, overlap=DAY).key
    copy, for_each = Budget.objects.get(scope="key", key=new.prefix), Budget.objects.get(scope="user", key=new.prefix)
    assert (copy.name, copy.limit_usd, copy.period, for_each.limit_tokens) == (
        f"Web shop ({new.prefix})",
        5,
        budget.period,
        each.limit_tokens,
    )
    period = BudgetPeriod.objects.get(budget=copy)
    assert (period.spent_usd, period.reserved_usd, period.spent_tokens, period.reserved_tokens) == (4, 0, 40, 0)
    assert Limit.objects.get(name=new.prefix).requests_per_minute == 7
    assert Budget.objects.count() == 5

    newest = rotate_key(new, overlap=DAY).key
    assert Budget.objects.get(scope="key", key=newest.prefix).name == f"Web shop ({newest.prefix})"
