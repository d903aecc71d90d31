"""Sums of the ledger: equal to it at every moment, whatever transactions are open and whoever sums at once."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from threading import Barrier

import psycopg
import pytest
from django.db import connection, transaction

from observability import orphans, rollups
from observability.bursts import run_burst
from observability.models import (
    Attempt,
    AttemptKind,
    AttemptOutcome,
    RollupState,
    SavedBy,
    TotalOfConversation,
    TotalOfPerson,
    UsageConversation,
    UsageDay,
    UsageHour,
    UsagePerson,
)
from observability.rollups import DERIVED, MEASURES, TABLES, TOTALS, roll_up, sums_of_attempts
from observability.usage import Wanted, report_usage
from tests.ledger import NOON, open_attempt, settle, spend
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)
ALL = Wanted(first=NOON.date() - timedelta(days=400), last=NOON.date() + timedelta(days=400))


def roll():
    with transaction.atomic():
        return roll_up()


def roll_all():
    """Sum until everything settled is in the sums: transactions of other databases of the server can hold them up, too."""

    def is_summed():
        roll()
        last = Attempt.objects.filter(settled_xid__isnull=False).order_by("-settled_xid").first()
        state = RollupState.objects.get()
        return last is None or min(state.upto_xid, state.totals_upto_xid) > last.settled_xid

    eventually(is_summed, what="everything summed")


def check_sums():
    """Compare every table of sums with the ledger itself."""
    with connection.cursor() as cursor:
        for table, columns in TABLES.items():
            places = ", ".join(str(place + 1) for place in range(len(columns)))
            cursor.execute(f"SELECT {', '.join([*columns, *MEASURES])} FROM {table} ORDER BY {places}")  # noqa: S608
            summed = cursor.fetchall()
            of_attempts = f"SELECT {sums_of_attempts(columns)} FROM observability_attempt WHERE settled_at IS NOT NULL"  # noqa: S608
            cursor.execute(f"{of_attempts} GROUP BY {places} ORDER BY {places}")
            assert summed == cursor.fetchall(), table
        for table, column in TOTALS.items():
            cursor.execute(f"SELECT {column}, cost_usd, first_day, last_day FROM {table} ORDER BY 1")  # noqa: S608
            summed = cursor.fetchall()
            of_attempts = f"SELECT {column}, sum(coalesce(cost_usd, 0)), min({DERIVED['day']}), max({DERIVED['day']})"
            cursor.execute(f"{of_attempts} FROM observability_attempt WHERE settled_at IS NOT NULL GROUP BY 1 ORDER BY 1")
            assert summed == cursor.fetchall(), table


def own_connection(stack):
    parameters = connection.get_connection_params()
    for ours in ("cursor_factory", "context"):
        parameters.pop(ours, None)
    return stack.enter_context(psycopg.connect(**parameters))


SETTLE = """
    UPDATE observability_attempt SET outcome = 'done', cost_usd = 2, prompt_tokens = 5, completion_tokens = 5, cached_tokens = 0,
    settled_at = now(), settled_xid = pg_current_xact_id()::text::bigint WHERE id = %s
"""


def test_sums_by_hour_day_person_and_conversation():
    spend("1", subject_id=3, conversation_id=8)
    spend("2", subject_id=4, conversation_id=8, started_at=NOON + timedelta(minutes=70))
    settle(open_attempt(), outcome=AttemptOutcome.FAILED, prompt_tokens=None, completion_tokens=None)
    settle(open_attempt(), outcome=AttemptOutcome.CACHED, saved_usd=Decimal("0.5"), prompt_tokens=None, completion_tokens=None)
    settle(open_attempt(price=None), price=None)
    settle(open_attempt(), prompt_tokens=0, completion_tokens=0, saved_usd=Decimal("0.25"), saved_by=SavedBy.ROUTING)
    settle(open_attempt(kind=AttemptKind.ROUTING), prompt_tokens=7, completion_tokens=0, trimmed_tokens=3_000_000)
    open_attempt()  # still running: in no sum
    roll_all()
    check_sums()
    day = UsageDay.objects.get(kind="chat")
    assert (day.attempts, day.turns, day.failed, day.cached, day.unpriced) == (6, 6, 1, 1, 1)
    assert (day.cost_usd, day.saved_usd, day.prompt_tokens) == (3, Decimal("0.75"), 3_000_100)
    asked = UsageDay.objects.get(kind="routing")
    assert (asked.turns, asked.cost_usd, asked.routing_cost_usd) == (0, Decimal("0.000007"), Decimal("0.000007"))
    assert (asked.trimmed_tokens, asked.saved_by_trimming_usd, asked.saved_usd) == (3_000_000, 3, 0)
    assert (day.routed, day.saved_by_routing_usd) == (1, Decimal("0.25"))
    assert [row.cost_usd for row in UsageHour.objects.filter(kind="chat").order_by("hour")] == [1, 2]
    assert dict(UsagePerson.objects.filter(kind="chat").values_list("subject_id", "cost_usd")) == {0: 0, 3: 1, 4: 2}
    assert UsageConversation.objects.get(conversation_id=8).cost_usd == 3


def test_a_further_attempt_is_no_further_turn():
    spend("1", number=1)
    spend("1", number=2)
    assert report_usage(ALL)[0].turns == 1


def test_without_news_nothing_changes():
    spend()
    roll_all()
    roll()
    check_sums()


def test_what_is_settled_by_an_open_transaction_is_counted_once_it_ends():
    attempt = open_attempt()
    with ExitStack() as stack:
        other = own_connection(stack)
        other.execute(SETTLE, [attempt])
        spend("1")  # by a later transaction, which ends first
        roll()
        assert report_usage(ALL)[0].cost_usd == 1
        other.commit()
        assert report_usage(ALL)[0].cost_usd == 3, "at once, though it is in no sum yet"
    roll_all()
    roll()
    check_sums()
    assert report_usage(ALL)[0].cost_usd == UsageDay.objects.get().cost_usd == 3


def test_what_a_transaction_takes_back_is_counted_never():
    attempt = open_attempt()
    with ExitStack() as stack:
        other = own_connection(stack)
        other.execute(SETTLE, [attempt])
        roll()
        other.rollback()
    roll()
    assert report_usage(ALL) == []
    settle(attempt)
    roll_all()
    check_sums()
    assert report_usage(ALL)[0].attempts == 1


@pytest.mark.parametrize("seed", range(4))
def test_sums_equal_the_ledger_after_any_interleaving(seed):
    print(f"seed {seed}")
    chance = random.Random(seed)
    committed = Decimal(0)
    with ExitStack() as stack:
        open_ones = []
        idle = [own_connection(stack) for _ in range(4)]
        for _ in range(60):
            step = chance.choice(["settle", "hold", "end", "roll", "report"])
            if step == "settle":
                usd = f"0.{chance.randrange(1, 1000):03}"
                spend(
                    usd, agent=chance.choice("ab"), subject_id=chance.randrange(3), started_at=NOON + timedelta(hours=chance.randrange(50))
                )
                committed += Decimal(usd)
            elif step == "hold" and idle:
                other = idle.pop()
                other.execute(SETTLE, [open_attempt(agent=chance.choice("ab"))])
                open_ones.append(other)
            elif step == "end" and open_ones:
                other = open_ones.pop(chance.randrange(len(open_ones)))
                if chance.random() < 0.7:
                    other.commit()
                    committed += 2
                else:
                    other.rollback()
                idle.append(other)
            elif step == "roll":
                roll()
            for by in ((), ("user",), ("hour",), ("conversation",)):
                assert sum(line.cost_usd for line in report_usage(ALL, by=by)) == committed
    roll_all()
    check_sums()


def test_totals_catch_up_with_a_worker_that_does_not_know_them():
    spend("1")
    roll_all()
    RollupState.objects.update(totals_upto_xid=0)
    TotalOfPerson.objects.all().delete()
    TotalOfConversation.objects.all().delete()
    spend("2", started_at=NOON - timedelta(days=2))
    roll_all()
    check_sums()


def test_totals_are_made_anew_where_a_worker_that_does_not_know_them_made_the_sums_anew():
    for _ in range(3):
        spend("1")
    roll_all()
    lift_numbers(1_000_000_000)
    before = RollupState.objects.get()
    spend("1")  # with a number that looks as if it were summed
    roll_all()
    spend("1")
    roll_all()
    # What that worker leaves: totals as they were, of numbers above or below those that the sums have reached since.
    RollupState.objects.update(totals_upto_xid=before.upto_xid, totals_xid_offset=before.totals_xid_offset)
    TotalOfPerson.objects.update(cost_usd=3)
    TotalOfConversation.objects.update(cost_usd=3)
    roll_all()
    check_sums()


def test_a_long_ledger_is_summed_in_slices_and_reports_are_exact_meanwhile(monkeypatch):
    monkeypatch.setattr(rollups, "_SLICE", 2)
    for _ in range(7):
        spend("1")
    summed = [0]

    def is_summed():
        roll()
        summed.append(sum(row.attempts for row in UsageDay.objects.all()))
        assert report_usage(ALL)[0].attempts == 7
        return summed[-1] == 7

    eventually(is_summed, what="everything summed")
    assert all(after - before <= 2 for before, after in pairwise(summed))
    roll_all()
    check_sums()


def test_a_transaction_that_settles_more_than_a_slice_is_summed_whole(monkeypatch):
    monkeypatch.setattr(rollups, "_SLICE", 2)
    with transaction.atomic():
        for _ in range(5):
            spend("1")
    spend("1")
    roll_all()
    check_sums()


def test_workers_that_sum_at_once_count_nothing_twice():
    barrier = Barrier(4)

    def work(number):
        barrier.wait()
        for _ in range(10):
            if number % 2:
                spend("1", agent=f"agent-{number}")
            roll()
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    roll_all()
    check_sums()
    assert report_usage(ALL)[0].attempts == 20


def test_the_worker_keeps_sums_up_and_settles_what_was_left_behind(monkeypatch):
    monkeypatch.setattr(rollups, "_EVERY_S", 0.01)
    monkeypatch.setattr(orphans, "_EVERY_S", 0.01)
    left_behind = open_attempt(deadline_at=datetime.now(UTC) - timedelta(minutes=1))

    async def work():
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group, asyncio.timeout(120):
            group.create_task(rollups.keep_summing(stopping))
            group.create_task(orphans.keep_settling_orphans(stopping))
            while not await run_burst(UsageDay.objects.filter(failed=1).exists):  # noqa: ASYNC110 - another process would set no event either
                await asyncio.sleep(0.02)
            stopping.set()

    asyncio.run(work())
    assert Attempt.objects.get(pk=left_behind).outcome == "orphaned"
    check_sums()


def test_sums_stay_right_where_a_dump_is_restored_into_a_server_with_lower_numbers():
    for _ in range(3):
        spend("1")
    roll_all()
    spend("1")
    lift_numbers(1_000_000_000)
    spend("1")  # settled there, with a number that looks as if it were summed
    roll()
    check_sums()
    assert report_usage(ALL)[0].cost_usd == 5
    spend("1")
    assert report_usage(ALL)[0].cost_usd == 6
    roll_all()
    check_sums()
    assert RollupState.objects.get().xid_offset > 0


def lift_numbers(by):
    """Make it look as if everything so far had been settled by a server with higher transaction numbers."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE observability_attempt DISABLE TRIGGER observability_keep_settled")
        cursor.execute("UPDATE observability_attempt SET settled_xid = settled_xid + %s", [by])
        cursor.execute("ALTER TABLE observability_attempt ENABLE TRIGGER observability_keep_settled")
    RollupState.objects.update(upto_xid=RollupState.objects.get().upto_xid + by)
    assert Attempt.objects.filter(settled_xid__gt=by).exists()
