"""Reports of usage: exact with and without sums, by any group that is kept, and only of what is asked for."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction

from observability import dearest
from observability.models import AttemptKind, AttemptOutcome, RollupState, TotalOfConversation
from observability.rollups import roll_up
from observability.usage import Wanted, forecast_usd, list_failures, report_usage
from tests.ledger import NOON, open_attempt, settle, spend

pytestmark = pytest.mark.django_db(transaction=True)

DAY = NOON.date()
THE_DAY = Wanted(first=DAY, last=DAY)
CONVERSATION = ("conversation", "agent")


@pytest.fixture(params=["in the sums", "not in the sums", "half of it"])
def summed(request):
    """Have the sums made of all, of nothing, or of what was there in the middle."""

    def summed(*, halfway=False):
        if (request.param == "half of it") is halfway and request.param != "not in the sums":
            with transaction.atomic():
                roll_up()

    return summed


def costs(lines, *groups):
    return {tuple(line.group[group] for group in groups): line.cost_usd for line in lines}


def the_dearest(wanted, *by, limit):
    return dearest.dearest(wanted, by=by, limit=limit)


def test_a_report_by_every_group(summed):
    spend("1", agent="a", key="k1", subject_id=1, model="small", conversation_id=5)
    spend("2", agent="a", key="k2", subject_id=2, model="large", conversation_id=6, started_at=NOON - timedelta(days=1))
    summed(halfway=True)
    spend("4", agent="b", key="k1", subject_id=1, model="large", conversation_id=5, kind=AttemptKind.SUMMARY)
    summed()
    both = Wanted(first=DAY - timedelta(days=1), last=DAY)
    assert costs(report_usage(both, by=("agent",)), "agent") == {("a",): 3, ("b",): 4}
    assert costs(report_usage(both, by=("day", "key")), "day", "key") == {
        (DAY - timedelta(days=1), "k2"): 2, (DAY, "k1"): 5,
    }  # fmt: skip
    assert costs(report_usage(both, by=("user",)), "user") == {(1,): 5, (2,): 2}
    assert costs(report_usage(both, by=("model", "user")), "model", "user") == {("small", 1): 1, ("large", 2): 2, ("large", 1): 4}
    assert costs(report_usage(both, by=("kind",)), "kind") == {("chat",): 3, ("summary",): 4}
    assert costs(report_usage(both, by=("conversation",)), "conversation") == {(5,): 5, (6,): 2}
    assert [line.cost_usd for line in report_usage(both, by=("hour",))] == [2, 5]
    assert report_usage(both)[0].cost_usd == 7
    assert report_usage(both)[0].turns == 2


def test_only_what_is_wanted(summed):
    spend("1", agent="a", key="k1", subject_id=1)
    spend("2", agent="b", key="k2", subject_id=2)
    summed()
    assert report_usage(Wanted(first=DAY, last=DAY, agents=["a"]))[0].cost_usd == 1
    assert report_usage(Wanted(first=DAY, last=DAY, keys=["k2"]))[0].cost_usd == 2
    assert report_usage(Wanted(first=DAY, last=DAY, keys=[])) == []
    assert report_usage(Wanted(first=DAY, last=DAY, people=[2]))[0].cost_usd == 2
    assert report_usage(Wanted(first=DAY + timedelta(days=1), last=DAY + timedelta(days=1))) == []


def test_days_are_those_of_utc_whatever_the_connection_believes(summed):
    spend("1", started_at=datetime(2026, 11, 22, 0, 0, tzinfo=UTC))
    spend("2", started_at=datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC))
    spend("4", started_at=datetime(2026, 11, 23, 0, 0, tzinfo=UTC))
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'Pacific/Kiritimati'")
    try:
        summed()
        assert report_usage(THE_DAY)[0].cost_usd == 3
        assert costs(report_usage(Wanted(first=DAY, last=DAY + timedelta(days=1)), by=("day",)), "day") == {
            (DAY,): 3,
            (date(2026, 11, 23),): 4,
        }
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")


def test_the_dearest_come_first_and_no_more_than_asked_for(summed):
    for conversation, usd in ((1, "1"), (2, "5"), (3, "3")):
        spend(usd, conversation_id=conversation)
    summed()
    assert [line.group["conversation"] for line in report_usage(THE_DAY, by=("conversation",), dearest=True, limit=2)] == [2, 3]


def test_the_dearest_conversations_over_all_days(summed):
    for conversation, usd in ((1, "2"), (2, "5"), (0, "50"), (4, "0")):
        spend(usd, conversation_id=conversation)
    spend("4", conversation_id=1, started_at=NOON - timedelta(days=3))
    summed(halfway=True)
    spend("0.5", conversation_id=1, agent="another", key="k8")
    summed()
    week = Wanted(first=DAY - timedelta(days=6), last=DAY)
    assert costs(the_dearest(week, *CONVERSATION, limit=2), "conversation", "agent") == {(1, "helper"): 6, (2, "helper"): 5}
    assert costs(the_dearest(week, *CONVERSATION, limit=9), "conversation") == {(1,): Decimal("0.5"), (2,): 5}
    assert costs(the_dearest(Wanted(first=DAY, last=DAY, keys=["k8"]), *CONVERSATION, limit=9), "conversation") == {(1,): Decimal("0.5")}
    assert the_dearest(Wanted(first=DAY, last=DAY, keys=[]), *CONVERSATION, limit=9) == []


@pytest.mark.parametrize(("for_each", "again"), [(1, 4), (1, 6), (1, 8), (2, 4), (10, 5_000)])
@pytest.mark.parametrize("seed", range(3))
def test_the_dearest_of_many_days_whatever_they_cost_before(summed, monkeypatch, seed, for_each, again):
    """Totals over all time only narrow down who is looked at: the lines are those that adding up all would find."""
    print(f"seed {seed}")
    monkeypatch.setattr(dearest, "_LOOKED_AT_FOR_EACH", for_each)
    monkeypatch.setattr(dearest, "_LOOKED_AT_AGAIN", again)
    chance = random.Random(seed)
    for number in range(60):
        someone = chance.randrange(1, 9)
        spend(
            f"0.{chance.randrange(1, 999):03}",
            conversation_id=someone,
            subject_id=someone,
            key=chance.choice(["k7", "k8"]),
            started_at=NOON - timedelta(days=chance.randrange(60)),
        )
        summed(halfway=number == 30)
    summed()
    for wanted in (Wanted(first=DAY - timedelta(days=29), last=DAY), Wanted(first=DAY - timedelta(days=45), last=DAY, keys=["k8"])):
        conversations = report_usage(wanted, by=("conversation", "agent"), dearest=True, limit=3)
        assert costs(the_dearest(wanted, *CONVERSATION, limit=3), "conversation") == costs(conversations, "conversation")
        assert costs(the_dearest(wanted, "user", limit=3), "user") == costs(
            report_usage(wanted, by=("user",), dearest=True, limit=3), "user"
        )


def test_more_conversations_are_looked_at_before_all_are_added_up(monkeypatch):
    def rank_all(*args, **kwargs):
        raise AssertionError("all were added up")

    monkeypatch.setattr(dearest, "_LOOKED_AT_FOR_EACH", 1)
    monkeypatch.setattr(dearest, "_LOOKED_AT_AGAIN", 4)
    monkeypatch.setattr(dearest, "_rank_all", rank_all)
    for conversation, usd, key in ((1, "9", "k8"), (2, "8", "k8"), (3, "7", "k8"), (4, "5", "k7"), (5, "1", "k7")):
        spend(usd, conversation_id=conversation, key=key)
    with transaction.atomic():
        roll_up()
    week = Wanted(first=DAY - timedelta(days=9), last=DAY, keys=["k7"])
    assert costs(the_dearest(week, *CONVERSATION, limit=1), "conversation") == {(4,): 5}
    with pytest.raises(AssertionError, match="all were added up"):
        the_dearest(week, *CONVERSATION, limit=2)


def test_the_dearest_while_totals_are_not_there_yet():
    spend("5", conversation_id=1)
    with transaction.atomic():
        roll_up()
    RollupState.objects.update(totals_upto_xid=0)
    TotalOfConversation.objects.update(cost_usd=0)
    spend("1", conversation_id=2)
    week = Wanted(first=DAY - timedelta(days=9), last=DAY)
    assert costs(the_dearest(week, *CONVERSATION, limit=1), "conversation") == {(1,): 5}


def test_the_dearest_people(summed):
    spend("4", subject_id=1)
    spend("5", subject_id=2)
    spend("2", subject_id=1, started_at=NOON - timedelta(days=1))
    spend("9")  # nobody's
    summed()
    spend("0.5", subject_id=3)
    span = Wanted(first=DAY - timedelta(days=1), last=DAY)
    assert costs(the_dearest(span, "user", limit=2), "user") == {(1,): 6, (2,): 5}
    assert costs(the_dearest(Wanted(first=DAY, last=DAY), "user", limit=9), "user") == {(2,): 5, (1,): 4, (3,): Decimal("0.5")}


@pytest.mark.parametrize(
    "by", [("user",), ("user", "model"), ("day", "user"), ("conversation",), ("agent", "conversation"), ("conversation", "day")]
)
@pytest.mark.parametrize("days", [1, 30])
def test_the_dearest_are_somebodys_and_cost_something_whatever_they_are_grouped_by(summed, by, days):
    spend("9")  # nobody's
    spend("0", subject_id=1, conversation_id=1)
    spend("2", subject_id=2, conversation_id=2)
    summed(halfway=True)
    spend("1", subject_id=3, conversation_id=3)
    summed()
    span = Wanted(first=DAY - timedelta(days=days - 1), last=DAY)
    assert [(len(line.group), line.cost_usd) for line in the_dearest(span, *by, limit=9)] == [(len(by), 2), (len(by), 1)]
    assert [line.cost_usd for line in the_dearest(span, *by, limit=1)] == [2]


def test_groups_that_are_not_kept_together_are_refused():
    with pytest.raises(ValueError, match="user, conversation"):
        report_usage(THE_DAY, by=("user", "conversation"))


def test_nothing_is_lost_of_small_sums(summed):
    for _ in range(3):
        settle(open_attempt(), prompt_tokens=1, completion_tokens=0)
    settle(open_attempt(), outcome=AttemptOutcome.CACHED, prompt_tokens=None, completion_tokens=None, saved_usd=Decimal("0.0000000001"))
    summed()
    [line] = report_usage(THE_DAY)
    assert (line.cost_usd, line.saved_usd, line.cached) == (Decimal("0.000003"), Decimal("0.0000000001"), 1)
    assert isinstance(line.prompt_tokens, int)


def test_failures_by_what_went_wrong():
    for _ in range(2):
        settle(open_attempt(), outcome=AttemptOutcome.FAILED, error_code="upstream-timeout", prompt_tokens=None, completion_tokens=None)
    settle(open_attempt(), outcome=AttemptOutcome.INTERRUPTED, error_code="stopped")
    settle(open_attempt(), outcome=AttemptOutcome.CANCELLED)
    found = list_failures(THE_DAY)
    assert [(failure.error_code, failure.attempts) for failure in found] == [("upstream-timeout", 2), ("stopped", 1)]
    assert found[0].last_at == NOON
    assert list_failures(Wanted(first=DAY, last=DAY, agents=["another"])) == []


def test_the_forecast_goes_on_as_in_the_last_two_weeks():
    for ago in range(1, 29):
        spend("2", started_at=NOON - timedelta(days=ago))
    spend("1")
    assert forecast_usd(DAY) == 21 * 2 + 1 + 8 * 2


@pytest.mark.parametrize(("ago", "expected"), [([], 0), ([0], 3 + 8 * 3), ([0, 1, 4], 9 + 8 * Decimal("1.5"))])
def test_the_forecast_of_a_young_installation_counts_from_its_first_day(ago, expected):
    for days in ago:
        spend("3", started_at=NOON - timedelta(days=days))
    assert forecast_usd(DAY) == expected


def test_the_forecast_on_the_last_day_is_what_was_spent():
    spend("3", started_at=datetime(2026, 11, 30, 1, tzinfo=UTC))
    assert forecast_usd(date(2026, 11, 30)) == 3
