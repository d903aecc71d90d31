"""In a real browser, against the real server: a target is added and tried, a rule changed, and an incident read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from observability.models import AlertRule, AlertTarget, Incident, Notice
from tests.factories import unique
from tests.live_server import LiveServer
from tests.signing_in import sign_in_as
from tests.sinks import SLACK_PATH, http_sink


@pytest.fixture
def operator(page: Page, server: LiveServer, live_db: None) -> Page:
    """A page of somebody who is signed in as an operator."""
    sign_in_as("operator", page, server)
    return page


def test_add_and_try_a_target_change_a_rule_and_read_an_incident(operator: Page, server: LiveServer) -> None:
    page, name = operator, unique("Operations")
    with http_sink() as slack:
        page.goto(f"{server.url}/admin/observability/alerttarget/add/")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Address", exact=True).fill(slack.url + SLACK_PATH)
        page.get_by_role("button", name="Save and continue editing").click()
        expect(page.get_by_text("127.0.0.1").first).to_be_visible()
        assert "s3cr3t" not in page.content()
        page.get_by_role("button", name="Send test").click()
        expect(page.get_by_text("✓ It was taken. See that it arrived.")).to_be_visible(timeout=90_000)
        assert "TEST: alerts arrive here." in str(slack.bodies)
        slack.answers = 404
        page.get_by_role("button", name="Send test").click()
        expect(page.get_by_text("✗ It was not taken: it answered with the status 404.")).to_be_visible(timeout=90_000)

    target = AlertTarget.objects.get(name=name)
    rule = AlertRule.objects.get(kind="latency")
    page.goto(f"{server.url}/admin/observability/alertrule/{rule.pk}/change/")
    page.get_by_label("At least so many seconds").fill("7.5")
    page.get_by_label(name).check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("7.5 seconds until the first words")).to_be_visible()
    assert list(rule.targets.all()) == [target]

    now = datetime.now(UTC)
    incident = Incident.objects.create(
        rule=rule, subject=name, name=f"agent {name}", text=f"Agent {name}: late.", value=9, first_seen_at=now, last_seen_at=now,
        opened_at=now,
    )  # fmt: skip
    Notice.objects.create(
        incident=incident, target=target, telling="opened", text=incident.text, created_at=now, due_at=now, tries=2,
        last_error="it answered with the status 404",
    )  # fmt: skip
    page.goto(f"{server.url}/admin/observability/incident/")
    page.get_by_role("link", name=f"Agent {name}: late.").click()
    expect(page.get_by_text("2 tries: it answered with the status 404")).to_be_visible()
    page.get_by_role("link", name=name, exact=True).first.click()
    expect(page.get_by_role("heading", name="What it was told")).to_be_visible()
    assert page.errors == []
    target.delete()
    incident.delete()
    AlertRule.objects.filter(pk=rule.pk).update(threshold=10)
