"""Notices reach each target once, grouped, retried, held in quiet hours; and no target or worker stands in another's way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from observability.alerts import delivery, sending
from observability.alerts.standing import failing_targets, latest_incidents
from observability.alerts.watching import keep_alerting, register_alert_queue
from observability.models import AlertRule, AlertTarget, Incident, JobFailure, Notice, NoticeState, TargetKind
from observability.queues import Queue, jobs_waiting, register_queue
from tests.factories import unique
from tests.sinks import SLACK_PATH, black_hole
from tests.waiting import eventually

from .conftest import look_at, make_target, send_all

pytestmark = pytest.mark.django_db(transaction=True)

BERLIN = ZoneInfo("Europe/Berlin")
EVENING = datetime(2026, 11, 22, 23, 30, tzinfo=BERLIN)
MORNING = datetime(2026, 11, 23, 7, 0, tzinfo=BERLIN)


@pytest.fixture(autouse=True)
def _failed_jobs_alone(only):
    only("failed_jobs", threshold=1, window_s=600)


def fail_job(queue="memory", *, at=None):
    JobFailure.objects.create(queue=queue, error="EmbeddingFailed", at=at or datetime.now(UTC))


def sent(result, kind="slack"):
    return REGISTRY.get_sample_value("chatbot_alerts_sent_total", {"target_kind": kind, "result": result}) or 0


def test_what_comes_together_is_one_message(slack, slack_target, webhook):
    for queue in ("memory", "facts", "summaries"):
        fail_job(queue)
    assert len(look_at()) == 3
    assert send_all() == 2
    assert len(slack.bodies) == len(webhook.bodies) == 1
    assert slack.bodies[0]["attachments"][0]["title"] == "[tests] 3 alerts"
    assert [text.startswith("NEW: Background work") for text in webhook.texts[1:]] == [True] * 3
    assert webhook.bodies[0]["text"] == webhook.bodies[0]["content"]


def test_a_message_fits_into_what_discord_takes_and_nothing_is_lost(webhook):
    for number in range(25):
        fail_job(f"{number:02} {'q' * 30}")
    look_at()
    assert send_all() > 1
    assert max(len(body["content"]) for body in webhook.bodies) < 2000
    lines = [text for text in webhook.texts if text.startswith("NEW")]
    assert len(lines) == len(set(lines)) == 25


def test_a_rule_tells_the_targets_that_it_names(slack, discord, slack_target, discord_target, only):
    only("failed_jobs", threshold=1).targets.add(discord_target)
    fail_job()
    look_at()
    assert send_all() == 1
    assert (len(slack.bodies), len(discord.bodies)) == (0, 1)


def test_a_target_that_came_later_hears_of_no_end_without_a_beginning(slack, slack_target, discord):
    now = datetime.now(UTC)
    fail_job(at=now)
    look_at(now)
    make_target(TargetKind.WEBHOOK, discord.url + "/late")
    [change] = look_at(now + timedelta(minutes=11))
    assert change.telling == "resolved"
    assert send_all(now + timedelta(minutes=11)) == 1
    assert slack.texts[0] == "[tests] 1 alert, 1 over"
    assert discord.tried == 0


def test_it_is_told_again_only_where_the_rule_wants_it(webhook, only):
    only("failed_jobs", threshold=1, window_s=86_400)
    now = datetime.now(UTC)
    fail_job(at=now)
    assert len(look_at(now)) == 1
    assert look_at(now + timedelta(hours=5)) == []
    AlertRule.objects.update(again_every_s=3600)
    assert [change.telling for change in look_at(now + timedelta(hours=5))] == ["again"]
    assert look_at(now + timedelta(hours=5, minutes=30)) == []


def test_what_does_not_hold_is_not_told(only):
    only("failed_jobs", threshold=1, window_s=60, holds_s=120)
    now = datetime.now(UTC)
    fail_job(at=now)
    assert look_at(now) == []
    assert Incident.objects.get().opened_at is None
    assert look_at(now + timedelta(seconds=90)) == []
    assert not Incident.objects.exists()


def test_what_comes_back_soon_has_not_been_over(only):
    only("failed_jobs", threshold=1, window_s=60, clears_s=300)
    now = datetime.now(UTC)
    fail_job(at=now)
    assert len(look_at(now)) == 1
    assert look_at(now + timedelta(minutes=2)) == []
    fail_job(at=now + timedelta(minutes=3))
    assert look_at(now + timedelta(minutes=3)) == []
    assert look_at(now + timedelta(minutes=6)) == []
    assert [change.telling for change in look_at(now + timedelta(minutes=12))] == ["resolved"]


def test_a_rule_that_is_switched_off_ends_its_incidents(webhook):
    fail_job()
    look_at()
    AlertRule.objects.update(is_active=False)
    [change] = look_at()
    assert change.text == "background work memory: its rule was switched off (after 1 min)."


def test_quiet_hours_hold_back_all_but_critical_and_send_one_digest(slack, only):
    make_target(TargetKind.SLACK, slack.url + SLACK_PATH, quiet_from=time(22), quiet_until=time(7), time_zone="Europe/Berlin")
    only("failed_jobs", threshold=1, window_s=600)
    AlertRule.objects.filter(kind="evaluation_failures").update(is_active=True, is_critical=True, window_s=86_400)
    for minutes, queue in ((0, "memory"), (30, "facts"), (60, "evaluation")):
        at = EVENING + timedelta(minutes=minutes)
        fail_job(queue, at=at)
        look_at(at)
        send_all(at)
    assert [text for text in slack.texts if text.startswith("NEW")] == [text for text in slack.texts if "Evaluations" in text]
    assert len(slack.bodies) == 1, "the critical one at once, the others not"
    look_at(MORNING - timedelta(seconds=1))
    assert send_all(MORNING - timedelta(seconds=1)) == 0
    assert send_all(MORNING) == 1
    assert slack.bodies[1]["attachments"][0]["title"] == "[tests] 2 alerts, 2 over"
    assert [text.split(" ")[0] for text in slack.texts[3:]] == ["NEW:", "NEW:", "OVER:", "OVER:"]


@pytest.mark.parametrize(
    ("hours", "at", "quiet"),
    [
        ((22, 7), "23:00", True), ((22, 7), "06:59", True), ((22, 7), "07:00", False), ((22, 7), "21:59", False),
        ((12, 14), "13:00", True), ((12, 14), "14:00", False), ((8, 8), "08:00", False),
    ],
)  # fmt: skip
def test_quiet_hours_by_the_targets_own_clock(hours, at, quiet):
    target = AlertTarget(quiet_from=time(hours[0]), quiet_until=time(hours[1]), time_zone="Europe/Berlin")
    berlin = datetime.combine(EVENING.date(), time.fromisoformat(at), BERLIN)
    assert sending.is_quiet(target, berlin.astimezone(UTC)) is quiet
    assert not sending.is_quiet(AlertTarget(), berlin)


def test_a_target_that_fails_is_tried_again_with_growing_waits(slack, slack_target):
    failed, taken = sent("failed"), sent("sent")
    fail_job()
    now = datetime.now(UTC)
    look_at(now)
    slack.answers = 503
    with capture_logs() as lines:
        assert send_all(now) == 0
    [line] = [line for line in lines if line["event"] == "alert not taken"]
    assert line["reason"] == "it answered with the status 503"
    assert "s3cr3t" not in str(lines)
    notice = Notice.objects.get()
    assert (notice.state, notice.tries, notice.last_error) == (NoticeState.WAITING, 1, "it answered with the status 503")
    assert send_all(now + timedelta(seconds=9)) == 0
    assert slack.tried == 1
    waits = []
    for _ in range(7):
        notice = Notice.objects.get()
        send_all(notice.due_at)
        waits.append((Notice.objects.get().due_at - notice.due_at).total_seconds())
    assert waits == [20, 40, 80, 160, 300, 300, 300]
    slack.answers = 200
    assert send_all(now + timedelta(hours=1)) == 1
    assert Notice.objects.get().last_error == ""
    assert len(slack.bodies) == 1
    assert (sent("failed") - failed, sent("sent") - taken) == (8, 1)


def test_after_three_days_a_notice_is_given_up(slack, slack_target):
    slack.answers = 404
    now = datetime.now(UTC)
    fail_job(at=now)
    look_at(now)
    send_all(now + timedelta(days=3, seconds=1))
    notice = Notice.objects.get()
    assert (notice.state, notice.last_error) == (NoticeState.GIVEN_UP, "it answered with the status 404")
    assert send_all(now + timedelta(days=4)) == 0
    assert slack.tried == 1


def test_a_worker_that_died_in_between_leaves_its_notices_to_the_next(slack, slack_target):
    now = datetime.now(UTC)
    fail_job()
    look_at(now)
    with transaction.atomic():
        assert sending.take(slack_target.pk, now=now) is not None
    assert send_all(now + timedelta(seconds=1)) == 0
    assert send_all(now + sending.LEASE + timedelta(seconds=1)) == 1
    assert len(slack.bodies) == 1


def test_what_waits_for_a_target_that_is_switched_off_is_given_up(slack, slack_target):
    fail_job()
    look_at()
    AlertTarget.objects.update(is_active=False)
    assert send_all() == 0
    slack_target.refresh_from_db()
    assert sending.give_up_for(slack_target) == 1
    AlertTarget.objects.update(is_active=True)
    assert send_all() == 0


def test_what_waits_for_a_webhook_that_is_not_set_any_more_is_given_up(webhook, settings):
    webhook.answers = 500
    fail_job()
    look_at()
    send_all()
    assert [target.name for target in failing_targets()] == ["ALERT_WEBHOOK_URL"]
    settings.ALERT_WEBHOOK_URL = ""
    sending.give_up_for_nobody()
    assert Notice.objects.get().state == NoticeState.GIVEN_UP
    assert failing_targets() == []


def test_a_target_that_does_not_take_its_alerts_is_an_incident_itself(webhook, slack, slack_target, only, monkeypatch):
    monkeypatch.setattr("observability.queues._queues", {})
    register_alert_queue()
    slack.answers = 500
    now = datetime.now(UTC) - timedelta(minutes=20)
    fail_job(at=now)
    look_at(now)
    send_all(now)
    AlertRule.objects.filter(kind="queue_age").update(is_active=True, holds_s=0)
    changes = look_at()
    [opened] = [change.text for change in changes if change.telling == "opened"]
    assert "Queue alerts: the oldest of 1 job has waited" in opened
    send_all()
    assert "Queue alerts" in str(webhook.bodies)


def test_what_quiet_hours_hold_waits_only_from_their_end(slack, only, monkeypatch):
    monkeypatch.setattr("observability.queues._queues", {})
    register_alert_queue()
    now = datetime.now(UTC)
    target, hour = make_target(TargetKind.SLACK, slack.url + SLACK_PATH), timedelta(hours=1)
    slack.answers = 500
    fail_job(at=now - 3 * hour)
    look_at(now - 3 * hour)
    send_all(now - 3 * hour)
    created_at = Notice.objects.get(target=target).created_at

    def waiting(quiet_from, quiet_until):
        AlertTarget.objects.filter(pk=target.pk).update(quiet_from=quiet_from.time(), quiet_until=quiet_until.time())
        [queue] = jobs_waiting()
        return queue.jobs, queue.since

    assert jobs_waiting()[0].since == created_at
    assert waiting(now - hour, now + hour) == (0, None)
    assert waiting(now - 2 * hour, now - hour) == (1, now - hour)
    assert waiting(now + hour, now - 4 * hour) == (1, created_at), "it came after them"
    assert waiting(now - hour, now - hour) == (1, created_at), "hours without a length are none"
    AlertRule.objects.update(is_critical=True)
    assert waiting(now - hour, now + hour) == (1, created_at)
    assert waiting(now - 2 * hour, now - hour) == (1, created_at)


def test_the_latest_incidents_stand_open_ones_first():
    now = datetime.now(UTC)
    fail_job("old", at=now - timedelta(hours=2))
    look_at(now - timedelta(hours=2))
    look_at(now - timedelta(hours=1))
    fail_job("new", at=now)
    look_at(now)
    assert [(line.title, line.text.split("”")[0], line.resolved_at is None) for line in latest_incidents(limit=5)] == [
        ("Failed background work", "Background work “new", True), ("Failed background work", "Background work “old", False)
    ]  # fmt: skip
    assert len(latest_incidents(limit=1)) == 1


def test_without_a_target_the_log_is_told():
    fail_job()
    with capture_logs() as lines:
        work_until(lambda: Incident.objects.filter(opened_at__isnull=False).exists())
    [line] = [line for line in lines if line["event"] == "alert began"]
    assert (line["rule"], line["about"]) == ("failed_jobs", "background work memory")
    assert not Notice.objects.exists()


def _wait_for(arrived):
    try:
        eventually(arrived, what="the alerts arrive", timeout_s=120)
    finally:
        connection.close()  # this thread's own


def work_until(arrived, *, workers=1):
    """Run workers until `arrived`."""

    async def work():
        stopping = asyncio.Event()
        tasks = [asyncio.create_task(keep_alerting(stopping, look_every_s=0.02, send_every_s=0.02)) for _ in range(workers)]
        await asyncio.to_thread(_wait_for, arrived)
        stopping.set()
        await asyncio.gather(*tasks)

    async_to_sync(work)()


def test_several_workers_tell_once(webhook, slack, slack_target):
    for number in range(12):
        fail_job(f"queue {number:02}")
    work_until(lambda: len(webhook.texts) >= 13 and slack.bodies, workers=3)
    lines = [text for text in webhook.texts if text.startswith("NEW")]
    assert len(lines) == len(set(lines)) == 12
    assert Notice.objects.exclude(state=NoticeState.SENT).count() == 0
    assert Incident.objects.count() == 12
    assert len([text for text in slack.texts if text.startswith("NEW")]) == 12


def test_a_target_that_hangs_keeps_no_other_waiting(webhook, slack, slack_target, monkeypatch):
    monkeypatch.setattr(delivery, "DEADLINE_S", 12.0)  # enough for a courier that shall arrive
    with black_hole() as host:
        hanging = make_target(TargetKind.WEBHOOK, f"http://{host}/s3cr3t")
        fail_job()
        work_until(lambda: webhook.bodies and slack.bodies and Notice.objects.get(target=hanging).tries)
    notice = Notice.objects.get(target=hanging)
    assert notice.state == NoticeState.WAITING
    assert "did not answer" in notice.last_error or "could not be reached" in notice.last_error
    assert Notice.objects.filter(state=NoticeState.SENT).count() == 2


@pytest.mark.usefixtures("redis_gone")
def test_alerts_work_while_redis_is_down(webhook, slack, slack_target):
    fail_job()
    work_until(lambda: webhook.bodies and slack.bodies)


def test_a_question_that_fails_spoils_no_other_rule(webhook, monkeypatch):
    AlertRule.objects.filter(kind="queue_age").update(is_active=True)
    monkeypatch.setattr("observability.queues._queues", {})
    register_queue(Queue(unique("broken"), "SELECT 1/0, now()"))
    fail_job()
    with capture_logs() as lines:
        assert [change.incident.rule.kind for change in look_at()] == ["failed_jobs"]
    assert [line["rule"] for line in lines if line["event"] == "alert rule not looked at"] == ["queue_age"]
