"""Every kind of alert: really induced, received once by Slack, Discord, mail and ALERT_WEBHOOK_URL, and its end, too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from uuid_utils.compat import uuid7

from observability.alerts.kinds import KINDS, add_absent_rules
from observability.breakers import breaker_closed, breaker_opened
from observability.models import (
    AlertKind,
    AlertRule,
    AttemptKind,
    AttemptOutcome,
    Budget,
    Incident,
    JobFailure,
    Notice,
    NoticeState,
)
from observability.queues import Queue, register_queue
from tests.ledger import open_attempt, settle

from .conftest import look_at, send_all
from .spending import spend

pytestmark = pytest.mark.django_db(transaction=True)

PROJECT = Path(__file__).parents[3]


def fail(times=1, **fields):
    for _ in range(times):
        settle(open_attempt(**fields), outcome=AttemptOutcome.FAILED, error_code="upstream-failed", **only_named(fields))


def answer(times=1, **fields):
    settled = {name: fields.pop(name) for name in ("first_token_ms", "latency_ms") if name in fields}
    for _ in range(times):
        settle(open_attempt(**fields), **settled, **only_named(fields))


def only_named(fields):
    return {name: fields[name] for name in ("provider", "model") if name in fields}


def fail_jobs(times, queue, error="EmbeddingFailed"):
    for _ in range(times):
        JobFailure.objects.create(queue=queue, error=error, at=datetime.now(UTC))


def let_a_job_wait():
    register_queue(Queue("memory", "SELECT 7::bigint, now() - interval '20 minutes'"))


def open_a_breaker():
    for _ in range(3):
        breaker_opened(provider="openai", model="gpt-6-luna", reason="5 failures in a row")


def spend_a_budget():
    Budget.objects.create(name="Web shop", limit_usd=Decimal(10))
    spend("8.5")


INDUCED = {
    AlertKind.ERROR_RATE: (lambda: (answer(7), fail(3)), "Agent helper: 3 of 10 turns failed (30 %) in the last 5 minutes."),
    AlertKind.UPSTREAM_DOWN: (
        lambda: fail(3, provider="openai"), "Provider openai: all 3 calls in the last 3 minutes failed, most with upstream-failed."
    ),
    AlertKind.BREAKER_OPEN: (open_a_breaker, "gpt-6-luna at openai is not called since"),
    AlertKind.LATENCY: (
        lambda: (answer(18, first_token_ms=300), answer(2, first_token_ms=12_000)),
        "Agent helper: one in twenty of 20 answers began after 12.0 s or more, in the last 10 minutes.",
    ),
    AlertKind.BUDGET: (spend_a_budget, "Budget “Web shop”: 80 % is spent (8.50 of 10.00 USD). It resets on"),
    AlertKind.QUEUE_AGE: (let_a_job_wait, "Queue memory: the oldest of 7 jobs has waited since"),
    AlertKind.HIGH_TRAFFIC: (lambda: answer(15), "3 turns a minute in the last 5 minutes."),
    AlertKind.FAILED_JOBS: (
        lambda: fail_jobs(5, "memory"), "Background work “memory” failed 5 times in the last 15 minutes, mostly with EmbeddingFailed."
    ),
    AlertKind.EVALUATION_FAILURES: (
        lambda: fail(kind=AttemptKind.EVALUATION), "Evaluations of agent helper failed once in the last 60 minutes."
    ),
}  # fmt: skip
THRESHOLDS = {AlertKind.HIGH_TRAFFIC: 3}


@pytest.fixture(autouse=True)
def queues(monkeypatch):
    """Queues of this test alone."""
    monkeypatch.setattr("observability.queues._queues", {})


def end(kind):
    """Make it go away, where it does not by itself as time passes."""
    if kind is AlertKind.QUEUE_AGE:
        register_queue(Queue("memory", "SELECT 0::bigint, null::timestamptz"))
    if kind is AlertKind.BREAKER_OPEN:
        breaker_closed(provider="openai", model="gpt-6-luna")
    if kind is AlertKind.BUDGET:
        Budget.objects.update(limit_usd=Decimal(100))


@pytest.mark.parametrize("kind", list(AlertKind))
def test_each_kind_is_received_once_everywhere_with_its_end(
    kind, only, slack, discord, mail, webhook, slack_target, discord_target, mail_target
):
    induce, words = INDUCED[kind]
    rule = only(kind, **({"threshold": THRESHOLDS[kind]} if kind in THRESHOLDS else {}))
    assert look_at() == []
    induce()
    now = datetime.now(UTC)
    assert [change.telling for change in look_at(now)] == ["opened"]
    assert look_at(now + timedelta(seconds=1)) == []
    assert send_all(now) == 4
    assert send_all(now) == 0
    sinks = (slack, discord, mail, webhook)
    for sink in sinks:
        received = " ".join("\n".join(sink.texts).split())
        assert words in received, received
        assert f"docs/runbooks/{kind}.md" in received

    end(kind)
    later = now + timedelta(seconds=rule.window_s + 5)
    assert [change.telling for change in look_at(later)] == ["resolved"]
    assert look_at(later) == []
    assert send_all(later) == 4
    assert KINDS[kind].over in str(slack.bodies[-1])
    assert (len(slack.taken), len(discord.taken), len(mail.mails), len(webhook.taken)) == (2, 2, 4, 2)
    incident = Incident.objects.get()
    assert incident.resolved_at == later
    assert set(Notice.objects.values_list("state", flat=True)) == {NoticeState.SENT}


def test_a_provider_that_answers_once_is_not_down(only):
    only("upstream_down")
    fail(5, provider="openai")
    answer(1, provider="openai")
    assert look_at() == []


def test_a_turn_that_is_tried_again_and_again_is_one(only):
    only("upstream_down")
    turn_id = uuid7()
    for number in range(1, 6):
        fail(provider="openai", turn_id=turn_id, number=number)
    assert look_at() == []
    fail(2, provider="openai")
    [change] = look_at()
    assert "all 7 calls" in change.text


def test_a_fallback_that_answered_is_no_failed_turn(only):
    only("error_rate")
    for _ in range(5):
        turn_id = uuid7()
        fail(turn_id=turn_id)
        answer(turn_id=turn_id, number=2)
    fail(4, agent="quiet one")  # too few to tell
    assert look_at() == []
    fail(5, agent="other")
    assert [change.incident.subject for change in look_at()] == ["other"]


def test_a_turn_whose_model_is_left_alone_has_failed_unless_another_answered(only):
    only("error_rate")
    paused = {"outcome": AttemptOutcome.CANCELLED, "error_code": "upstream-paused"}  # as the meter gives back what it was promised
    for agent in ("alone", "answered", "fell back and failed"):
        for _ in range(5):
            turn_id = uuid7()
            settle(open_attempt(agent=agent, turn_id=turn_id), **paused)
            if agent == "answered":
                answer(agent=agent, turn_id=turn_id, number=2)
            elif agent != "alone":
                fail(agent=agent, turn_id=turn_id, number=2)
    assert {change.incident.subject for change in look_at()} == {"alone", "fell back and failed"}


def test_a_turn_that_its_client_left_has_not_failed(only):
    only("error_rate")
    for latency_ms in (None, 800):  # before its model was called, and while that answered
        for _ in range(5):
            settle(open_attempt(), outcome=AttemptOutcome.CANCELLED, latency_ms=latency_ms)
    for _ in range(5):
        turn_id = uuid7()
        fail(turn_id=turn_id)
        settle(open_attempt(turn_id=turn_id, number=2), outcome=AttemptOutcome.CANCELLED, latency_ms=800)
    assert look_at() == []


def test_a_breaker_of_which_nobody_tells_any_more_alerts_nobody(only):
    rule = only("breaker_open")
    open_a_breaker()
    assert len(look_at()) == 1
    [change] = look_at(datetime.now(UTC) + timedelta(seconds=rule.window_s + 1))
    assert change.telling == "resolved"


def test_a_breaker_that_opens_again_and_again_is_one_incident(only):
    rule = only("breaker_open", clears_s=KINDS[AlertKind.BREAKER_OPEN].clears_s)
    open_a_breaker()
    now = datetime.now(UTC)
    assert [change.telling for change in look_at(now)] == ["opened"]
    for seconds in (20, 40, 60):
        breaker_closed(provider="openai", model="gpt-6-luna")
        assert look_at(now + timedelta(seconds=seconds)) == []
        open_a_breaker()
        assert look_at(now + timedelta(seconds=seconds + 10)) == []
    breaker_closed(provider="openai", model="gpt-6-luna")
    assert look_at(now + timedelta(seconds=80)) == []
    assert [change.telling for change in look_at(now + timedelta(seconds=80 + rule.clears_s))] == ["resolved"]


def test_evaluation_work_counts_with_evaluations_only(only):
    fail_jobs(9, "evaluation")
    only("failed_jobs")
    assert look_at() == []
    only("evaluation_failures")
    assert [change.incident.name for change in look_at()] == ["evaluations"]


def test_every_kind_has_a_rule_a_runbook_and_words():
    assert set(KINDS) == set(AlertKind)
    AlertRule.objects.filter(kind="latency").delete()
    AlertRule.objects.filter(kind="budget").update(threshold=80)
    add_absent_rules()
    assert set(AlertRule.objects.values_list("kind", flat=True)) == set(AlertKind)
    assert AlertRule.objects.get(kind="budget").threshold == 80, "what is there stays as it is"
    for kind, words in KINDS.items():
        assert (PROJECT / "docs" / "runbooks" / f"{kind}.md").exists()
        assert len(f"{words.example} {words.remedy} (docs/runbooks/{kind}.md)") < 400
