"""The ledger: every call is settled once, at what it cost then, and never changes again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier

import pytest
from django.db import IntegrityError, connection, transaction
from uuid_utils.compat import uuid7

from observability.ledger import SettledAttempt
from observability.models import Attempt, AttemptKind, AttemptOutcome
from observability.orphans import settle_orphans
from observability.prices import FREE, Price
from tests.ledger import DOLLAR_A_MILLION, open_attempt, settle

LONG_AGO = datetime.now(UTC) - timedelta(minutes=5)
TIERED = Price(
    input_usd=Decimal("1.25"),
    output_usd=Decimal(10),
    cached_input_usd=Decimal("0.125"),
    tiers=((200_000, Price(input_usd=Decimal("2.5"), output_usd=Decimal(15), cached_input_usd=Decimal("0.25"))),),
)


@pytest.mark.django_db
def test_an_attempt_is_settled_once():
    attempt = open_attempt()
    assert settle(attempt, prompt_tokens=1000)
    assert not settle(attempt, prompt_tokens=9000)
    assert Attempt.objects.get(pk=attempt).prompt_tokens == 1000


@pytest.mark.django_db
@pytest.mark.parametrize("change", [{"cost_usd": 0}, {"outcome": "failed"}, {"agent": "another"}, {"settled_xid": 1}, {"settled_at": None}])
def test_the_database_refuses_to_change_what_is_settled(change):
    attempt = open_attempt()
    settle(attempt)
    with pytest.raises(IntegrityError, match="never changes"), transaction.atomic():
        Attempt.objects.filter(pk=attempt).update(**change)


@pytest.mark.django_db(transaction=True)
def test_of_the_process_and_the_reaper_at_once_one_settles():
    attempts = [open_attempt(deadline_at=LONG_AGO) for _ in range(20)]
    barrier = Barrier(2)

    def process():
        barrier.wait()
        settled = sum(settle(attempt) for attempt in attempts)
        connection.close()
        return settled

    def reaper():
        barrier.wait()
        settled = sum(settle_orphans() for _ in range(10))
        connection.close()
        return settled

    with ThreadPoolExecutor(2) as pool:
        assert sum(future.result() for future in (pool.submit(process), pool.submit(reaper))) == 20
    outcomes = Attempt.objects.values_list("outcome", "is_estimated", "prompt_tokens")
    assert set(outcomes) <= {("done", False, 100), ("orphaned", True, 1000)}


@pytest.mark.django_db
def test_only_attempts_past_their_deadline_are_orphans():
    running, orphan = open_attempt(), open_attempt(deadline_at=LONG_AGO)
    done = open_attempt(deadline_at=LONG_AGO)
    settle(done)
    assert settle_orphans() == 1
    assert dict(Attempt.objects.values_list("id", "outcome")) == {running: "running", orphan: "orphaned", done: "done"}


@pytest.mark.django_db
def test_an_orphan_costs_what_it_may_have_cost_at_the_dearest_price():
    orphan = open_attempt(deadline_at=LONG_AGO, price=TIERED, worst_prompt_tokens=250_000, worst_completion_tokens=1000)
    unpriced = open_attempt(deadline_at=LONG_AGO, price=None)
    assert settle_orphans() == 2
    row = Attempt.objects.get(pk=orphan)
    assert row.cost_usd == TIERED.most(prompt_tokens=250_000, completion_tokens=1000) == Decimal("0.64")
    assert (row.prompt_tokens, row.completion_tokens, row.is_estimated) == (250_000, 1000, True)
    assert Attempt.objects.get(pk=unpriced).cost_usd is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("price", "prompt", "cached", "completion", "cost", "held"),
    [
        (DOLLAR_A_MILLION, 1, 0, 2, "0.000003", "1"),
        (TIERED, 1000, 400, 100, "0.0018", "1.25"),
        (TIERED, 200_000, 0, 0, "0.25", "1.25"),
        (TIERED, 200_001, 0, 0, "0.5000025", "2.5"),
        (TIERED, 300_000, 100_000, 1000, "0.54", "2.5"),
        (Price(input_usd=Decimal("0.1"), output_usd=Decimal("0.2")), 3, 2, 0, "0.0000003", "0.1"),
        (FREE, 5000, 0, 5000, "0", "0"),
        (None, 10, 0, 10, None, None),
        (None, 0, 0, 0, "0", None),
    ],
    ids=["plain", "cached tokens", "at the edge of a tier", "above it", "cached in a tier", "no float", "free", "unknown", "unused"],
)
def test_costs_are_exact_and_keep_the_price_of_then(price, prompt, cached, completion, cost, held):
    attempt = open_attempt(price=price)
    settle(attempt, price=price, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
    row = Attempt.objects.get(pk=attempt)
    assert row.cost_usd == (None if cost is None else Decimal(cost))
    assert row.input_usd == (None if held is None else Decimal(held))


def test_a_vendor_that_reports_more_cached_tokens_than_it_was_sent_costs_no_less_than_nothing():
    assert TIERED.cost(prompt_tokens=10, cached_tokens=500, completion_tokens=0) == 10 * Decimal("0.125") / 1_000_000


def test_what_failed_before_it_used_anything_cost_nothing():
    failed = SettledAttempt(id=uuid7(), outcome=AttemptOutcome.FAILED, price=None)
    assert failed.cost_usd == 0


@pytest.mark.django_db
def test_a_turn_has_each_number_once_for_each_kind():
    turn = uuid7()
    open_attempt(turn_id=turn)
    open_attempt(turn_id=turn, kind=AttemptKind.SUMMARY)
    with pytest.raises(IntegrityError), transaction.atomic():
        open_attempt(turn_id=turn)
