"""The doctor's page: who may see it and examine, and a round in a real browser against the real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.test import Client
from django.urls import reverse
from playwright.sync_api import Page, expect

from agents.models import Agent
from observability.doctor.examination import Grade
from observability.doctor.examining import Result
from observability.doctor.reports import keep_report
from observability.models import Attempt, DoctorReport
from tests.factories import make_user
from tests.live_server import LiveServer
from tests.signing_in import sign_in_as
from tests.upstream import Refusal, Upstream

PAGE = "/admin/observability/doctorreport/"


def test_the_worst_stands_first_with_its_remedy(operator: Client) -> None:
    results = [
        Result("cache", Grade.OK, "Valkey 9", "", 0.1),
        Result("worker", Grade.FAILED, "none was ever seen", "Run <b>it</b>: `manage.py worker`.", 0.2),
        Result("prices", Grade.WARNING, "unknown", "Enter them.", 0.2),
    ]
    keep_report(results, by="anna", with_calls=False, seconds=1.5)
    page = operator.get(PAGE).content.decode()
    assert page.index("none was ever seen") < page.index("Enter them.") < page.index("Valkey 9")
    assert "Run &lt;b&gt;it&lt;/b&gt;: <code>manage.py worker</code>." in page
    assert "1 fault, 1 warning." in page
    assert "by anna" in page


@pytest.mark.django_db
def test_the_newest_twenty_reports_are_kept() -> None:
    reports = [keep_report([], by=str(number), with_calls=False, seconds=0) for number in range(23)]
    assert list(DoctorReport.objects.values_list("pk", flat=True)) == [report.pk for report in reversed(reports[3:])]


def test_editors_see_the_page_no_more_than_the_button_works_for_them(sign_in: Callable[[str], Client]) -> None:
    assert sign_in("editor").get(PAGE).status_code == 403


@pytest.mark.parametrize("role", ["editor", ""])
def test_who_may_not_examine_is_refused(live_db: None, role: str) -> None:
    client, address = Client(), reverse("admin:observability_doctorreport_examine")
    if role:
        client.force_login(make_user(role=role))
    before = DoctorReport.objects.count()
    assert client.post(address).status_code == 403
    assert client.get(address).status_code == 405
    assert DoctorReport.objects.count() == before


@pytest.fixture
def no_other_agents(live_db: None) -> Iterator[None]:
    """Agents that other tests left would be examined, too."""
    active = list(Agent.objects.filter(is_active=True).values_list("pk", flat=True))
    Agent.objects.filter(pk__in=active).update(is_active=False)
    yield
    Agent.objects.filter(pk__in=active).update(is_active=True)


def test_examine_in_a_browser(page: Page, server: LiveServer, no_other_agents: None, make_chat_agent, upstream: Upstream) -> None:
    sign_in_as("operator", page, server)
    upstream.script(Refusal(401, "Incorrect API key provided."))
    slug = make_chat_agent(upstream).live_version.provider.slug

    page.goto(server.url + PAGE)
    page.get_by_role("button", name="Examine now").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-examine] output")).to_contain_text("Done.", timeout=90_000)
    expect(page.get_by_role("button", name="Examine now")).to_be_focused()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="database", exact=True))
    expect(row).to_contain_text("PostgreSQL")
    expect(page.get_by_text("without calls of models")).to_be_visible()
    assert upstream.calls == []

    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Examine now").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=f"model: test-model at {slug}"))
    expect(row).to_contain_text("HTTP 401", timeout=90_000)
    expect(row).to_contain_text("To do: It refuses the key")
    assert Attempt.objects.filter(provider=slug, kind="evaluation", agent="", outcome="failed").count() == 1
    assert page.errors == []
    DoctorReport.objects.all().delete()
