"""Alerts in the admin: targets whose addresses go in and never come out, rules in plain words, incidents with whom they were told to."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client

from observability.alerts.addresses import address_of
from observability.models import AlertRule, AlertTarget, Incident, Notice, NoticeState
from tests.factories import make_user
from tests.sinks import SLACK_PATH, http_sink

pytestmark = pytest.mark.django_db(transaction=True)

TARGETS = "/admin/observability/alerttarget/"
RULES = "/admin/observability/alertrule/"
INCIDENTS = "/admin/observability/incident/"
NOW = datetime.now(UTC)


@pytest.fixture
def slack(settings):
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with http_sink() as sink:
        yield sink


def form(**changed):
    whole = {
        "name": "Operations", "is_active": "on", "kind": "slack", "to": "https://hooks.slack.com" + SLACK_PATH, "server": "",
        "quiet_from": "", "quiet_until": "", "time_zone": "UTC",
    }  # fmt: skip
    return whole | changed


def make_target(operator, **changed):
    response = operator.post(f"{TARGETS}add/", form(**changed))
    assert response.status_code == 302, response.context["errors"]
    return AlertTarget.objects.latest("pk")


def make_incident(**fields):
    rule = AlertRule.objects.get(kind="error_rate")
    return Incident.objects.create(
        **{
            "rule": rule, "subject": "helper", "name": "agent helper", "text": "Agent helper: 3 of 10 turns failed.", "value": 30,
            "first_seen_at": NOW, "last_seen_at": NOW, "opened_at": NOW, **fields,
        }
    )  # fmt: skip


def test_a_target_is_added_and_its_address_never_shown(operator):
    target = make_target(operator, quiet_from="22:00", quiet_until="07:00", time_zone="Europe/Berlin")
    assert address_of(target).to.endswith(SLACK_PATH)
    assert (target.quiet_from, target.quiet_until) == (time(22), time(7))
    for page in (TARGETS, f"{TARGETS}{target.pk}/change/", f"{TARGETS}{target.pk}/history/"):
        text = operator.get(page).content.decode()
        assert "s3cr3t" not in text
        assert target.sealed_address not in text
    page = operator.get(TARGETS).content.decode()
    assert "hooks.slack.com" in page
    assert "22:00 to 07:00 (Europe/Berlin)" in page


def test_the_stored_address_stays_unless_another_is_typed(operator):
    target = make_target(operator)
    before = target.sealed_address
    operator.post(f"{TARGETS}{target.pk}/change/", form(name="Renamed", to=""))
    target.refresh_from_db()
    assert (target.name, target.sealed_address) == ("Renamed", before)
    operator.post(f"{TARGETS}{target.pk}/change/", form(kind="email", to="ops@example.org", server="smtp://mail.example.org"))
    target.refresh_from_db()
    assert (target.kind, target.shown_as) == ("email", "ops@example.org")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"to": ""}, "A Slack webhook looks like"),
        ({"to": "https://hooks.slack.com/s3cr3t"}, "A Slack webhook looks like"),
        ({"to": "https://hooks.slack.com/services/s3cr3t"}, "cannot be understood"),
        ({"kind": "discord"}, "A Discord webhook looks like"),
        ({"kind": "webhook", "to": "ftp://example.org/s3cr3t"}, "begins with https://"),
        ({"kind": "webhook", "to": "https:///s3cr3t"}, "begins with https://"),
        ({"kind": "apprise", "to": "s3cr3tnonsense://x"}, "cannot be understood"),
        ({"kind": "email", "to": "ops"}, "Enter one or more e-mail addresses"),
        ({"kind": "email", "to": "ops@example.org"}, "There is no mail server"),
        ({"kind": "email", "to": "ops@example.org", "server": "mail.example.org"}, "A mail server looks like"),
        ({"quiet_from": "22:00"}, "Quiet hours have a beginning and an end."),
    ],
)
def test_what_cannot_be_is_explained(operator, changed, words):
    response = operator.post(f"{TARGETS}add/", form(**changed))
    assert response.status_code == 200
    assert words in str(response.context["adminform"].form.errors)
    assert not AlertTarget.objects.exists()


def test_what_waits_is_given_up_with_the_target_that_is_switched_off(operator):
    target = make_target(operator)
    Notice.objects.create(incident=make_incident(), target=target, telling="opened", text="x", created_at=NOW, due_at=NOW)
    operator.post(f"{TARGETS}{target.pk}/change/", {name: value for name, value in form(to="").items() if name != "is_active"})
    assert Notice.objects.get().state == NoticeState.GIVEN_UP


def test_a_failing_target_says_so(operator):
    target = make_target(operator)
    Notice.objects.create(
        incident=make_incident(), target=target, telling="opened", text="It fails.", created_at=NOW, due_at=NOW, tries=3,
        last_error="it answered with the status 404",
    )  # fmt: skip
    assert "it answered with the status 404" in operator.get(TARGETS).content.decode()
    page = operator.get(f"{TARGETS}{target.pk}/change/").content.decode()
    assert "3 tries: it answered with the status 404" in page
    assert "It fails." in page


@async_to_sync
async def post(user, path):
    client = AsyncClient()
    if user is not None:
        await client.aforce_login(user)
    return await client.post(path)


def test_send_test_tells_what_happened(operator, slack):
    target = make_target(operator, to=slack.url + SLACK_PATH)
    person = make_user(role="operator")
    assert post(person, f"{TARGETS}{target.pk}/test/").json() == {"ok": True, "text": "It was taken. See that it arrived."}
    assert "TEST: alerts arrive here." in str(slack.bodies)
    slack.answers = 403
    assert post(person, f"{TARGETS}{target.pk}/test/").json() == {
        "ok": False, "text": "It was not taken: it answered with the status 403."
    }  # fmt: skip


def test_a_rules_test_goes_to_everybody_it_is_for(operator, slack, settings):
    rule = AlertRule.objects.get(kind="latency")
    person = make_user(role="operator")
    settings.ALERT_WEBHOOK_URL = ""
    assert "Nobody is told" in post(person, f"{RULES}{rule.pk}/test/").json()["text"]
    settings.ALERT_WEBHOOK_URL = f"{slack.url}/hook"
    make_target(operator, to=slack.url + SLACK_PATH)
    make_target(operator, name="Gone", to="http://127.0.0.1:1" + SLACK_PATH)
    answer = post(person, f"{RULES}{rule.pk}/test/").json()
    assert answer["ok"] is False
    assert "Gone: not taken, it could not be reached: ConnectionError; Operations: taken; ALERT_WEBHOOK_URL: taken." in answer["text"]
    assert "TEST, with made-up values: Agent helper: one in twenty" in str(slack.bodies)


@pytest.mark.parametrize("role", [None, "", "editor"])
def test_only_operators_send_tests(role, operator):
    target = make_target(operator)
    person = make_user(role=role) if role is not None else None
    assert post(person, f"{TARGETS}{target.pk}/test/").status_code == 403
    assert post(person, f"{RULES}1/test/").status_code == 403


def test_unknown_ones_and_other_methods(operator):
    assert post(make_user(role="operator"), f"{TARGETS}999999/test/").status_code == 404
    assert operator.get(f"{TARGETS}1/test/").status_code == 405


def test_rules_are_changed_in_minutes(operator):
    rule = AlertRule.objects.get(kind="latency")
    page = operator.get(f"{RULES}{rule.pk}/change/").content.decode()
    assert "At least so many seconds until the first words" in page
    assert "docs/runbooks/latency.md" in page
    changed = {"is_active": "on", "threshold": "4.5", "window": "15", "holds": "1.5", "clears": "0", "again_every": "60"}
    response = operator.post(f"{RULES}{rule.pk}/change/", changed)
    assert response.status_code == 302, response.context["errors"]
    rule.refresh_from_db()
    assert (rule.threshold, rule.window_s, rule.holds_s, rule.clears_s, rule.again_every_s) == (4.5, 900, 90, 0, 3600)
    assert "4.5 seconds until the first words, for one answer in twenty, within 15 min, for 1.5 min" in operator.get(RULES).content.decode()


@pytest.mark.parametrize("changed", [{"window": "0"}, {"window": "2000"}, {"threshold": "-1"}, {"holds": "-1"}, {"threshold": ""}])
def test_rules_refuse_what_makes_no_sense(operator, changed):
    rule = AlertRule.objects.get(kind="latency")
    whole = {"is_active": "on", "threshold": "4.5", "window": "15", "holds": "1.5", "clears": "0", "again_every": "60"}
    assert operator.post(f"{RULES}{rule.pk}/change/", whole | changed).status_code == 200
    rule.refresh_from_db()
    assert rule.window_s == 600


def test_rules_that_look_at_the_present_have_no_window(operator):
    rule = AlertRule.objects.get(kind="budget")
    response = operator.post(
        f"{RULES}{rule.pk}/change/", {"is_active": "on", "threshold": "80", "holds": "0", "clears": "0", "again_every": "0"}
    )
    assert response.status_code == 302, response.context["errors"]
    rule.refresh_from_db()
    assert (rule.threshold, rule.is_critical) == (80, False)


def test_that_nobody_is_told_stands_above_the_rules(operator, settings):
    settings.ALERT_WEBHOOK_URL = ""
    assert "Nobody is told yet." in operator.get(RULES).content.decode()
    make_target(operator)
    assert "Nobody is told yet." not in operator.get(RULES).content.decode()


def test_incidents_stand_open_ones_first_with_their_timeline(operator):
    assert "Nothing has been wrong" in operator.get(INCIDENTS).content.decode()
    target = make_target(operator)
    make_incident(subject="pending", text="not yet told", opened_at=None)
    running = make_incident(text="still so")
    make_incident(subject="other", text="long over", resolved_at=NOW + timedelta(minutes=12))
    Notice.objects.create(
        incident=running, target=target, telling="opened", text="so it began", created_at=NOW, due_at=NOW, state="sent", sent_at=NOW
    )
    Notice.objects.create(incident=running, telling="opened", text="so it began", created_at=NOW, due_at=NOW)
    page = operator.get(INCIDENTS).content.decode()
    assert page.index("still so") < page.index("long over")
    assert "1 sent, 1 waiting" in page
    assert "nobody: there was no target" in page
    assert "not yet told" not in page
    page = operator.get(f"{INCIDENTS}{running.pk}/change/").content.decode()
    assert "so it began" in page
    assert "ALERT_WEBHOOK_URL" in page
    assert "docs/runbooks/error_rate.md" in page


def test_lists_cannot_be_filtered_by_sealed_addresses(operator: Client):
    assert operator.get(f"{TARGETS}?sealed_address__startswith=g").status_code in (302, 400)
