"""The start page and what it counts."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import DataError, connection
from django.test import Client, override_settings
from django.utils import timezone
from structlog.testing import capture_logs

from agents.admin import reading
from agents.admin.overview import draw_turns
from agents.admin.today import draw_paces
from agents.models import Agent
from memory.api import Breakage, Day, Hour, breakages_today, paces_by_hour, paces_today, turns_by_day, turns_today
from memory.models import Conversation, Subject, Turn, TurnState
from observability.doctor.examination import Grade
from observability.health import HealthCheck, Unhealthy, register_health_check
from observability.models import AlertRule, AlertTarget, Breaker, Budget, BudgetPeriod, Incident, Notice
from tests.factories import make_agent, unique


def id_at(at: datetime) -> uuid.UUID:
    """Return an id that tells the time, as turns have."""
    return uuid.UUID(int=int(at.timestamp() * 1000) << 80 | uuid.uuid4().int >> 56)


def add_turn(agent: str, *, at: datetime, state: TurnState = TurnState.DONE, error_code: str = "") -> None:
    subject, _ = Subject.objects.get_or_create(owner="anonymous", name="s")
    conversation, _ = Conversation.objects.get_or_create(owner="anonymous", agent=agent, session_id="s", defaults={"subject": subject})
    Turn.objects.create(
        id=id_at(at), conversation=conversation, seq=conversation.turns.count() + 1, state=state, agent=agent, version=1, message="Hi",
        error_code=error_code, created_at=at, deadline_at=at + timedelta(minutes=1), finished_at=at,
    )  # fmt: skip


@pytest.fixture
def now() -> datetime:
    """The time, at which no hour and no day is about to end."""
    if (left_s := 3600 - time.time() % 3600) < 10:
        time.sleep(left_s)
    return timezone.now()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine need not be quick, where that is not what is tried."""
    monkeypatch.setattr(reading, "FIGURE_S", 60.0)
    monkeypatch.setattr(reading, "PAGE_S", 300.0)


def test_counts_are_by_agent_and_utc_day(db: None, now: datetime) -> None:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for at in (now, midnight, midnight - timedelta(seconds=1), midnight - timedelta(days=13), midnight - timedelta(days=14)):
        add_turn("counted", at=at)
    add_turn("other", at=now)
    assert turns_today(["counted", "silent"]) == {"counted": 2, "silent": 0}
    days = turns_by_day(agents=["counted"])
    assert [day.turns for day in days] == [1, *[0] * 11, 1, 2]
    assert days[-1].day == midnight.date()


def test_broken_turns_are_counted_by_reason(db: None, now: datetime) -> None:
    for state, code in ((TurnState.FAILED, "upstream-failed"), (TurnState.FAILED, "upstream-failed"), (TurnState.INTERRUPTED, "stopped")):
        add_turn("breaking", at=now, state=state, error_code=code)
    add_turn("breaking", at=now)
    add_turn("breaking", at=now, state=TurnState.CANCELLED)
    assert [(found.error_code, found.turns) for found in breakages_today(["breaking"])] == [("upstream-failed", 2), ("stopped", 1)]
    assert turns_by_day(agents=["breaking"], days=1)[0].broken == 3


def test_of_a_day_no_more_broke_than_were_said_though_they_are_counted_later(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([{now.date(): 1}, {now.date(): 2}])
    monkeypatch.setattr("memory.activity._midnight", lambda: now)
    monkeypatch.setattr("memory.activity._count_by_day", lambda turns: next(counts))
    assert turns_by_day(agents=["any"], days=1) == [Day(day=now.date(), turns=1, broken=1)]


def test_today_no_more_broke_than_were_said_though_they_are_counted_later(
    editor: Client, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent()
    late = [Breakage(agent=agent.slug, error_code="stopped", turns=3, last_at=now)]
    monkeypatch.setattr("agents.admin.overview.turns_today", lambda slugs: {agent.slug: 2})
    monkeypatch.setattr("agents.admin.overview.breakages_today", lambda slugs: late)
    shown = editor.get("/admin/").context
    assert (shown["turns_today"], shown["broken_today"], shown["broken_share"]) == (2, 2, "100.0% of all turns")


def test_figures_are_of_all_agents_and_the_list_says_how_many_it_has(
    editor: Client, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.admin.overview._MOST_LISTED", 1)
    agents = [make_agent() for _ in range(3)]
    before = editor.get("/admin/").context["turns_today"]
    for agent in agents:
        add_turn(agent.slug, at=now)
    response = editor.get("/admin/")
    assert response.context["turns_today"] == before + 3
    assert len(response.context["agents"]) == 1
    assert f"1 of {Agent.objects.count():,};" in response.content.decode()


def test_start_page_shows_todays_numbers(editor: Client, now: datetime) -> None:
    agent = make_agent()
    add_turn(agent.slug, at=now)
    add_turn(agent.slug, at=now, state=TurnState.FAILED, error_code="upstream-timeout")
    response = editor.get("/admin/")
    assert response.context["turns_today"] == 2
    text = response.content.decode()
    assert "upstream-timeout" in text
    assert 'role="img" aria-label="Bar chart of how much was said on each day, in turns;' in text
    assert text.count('class="ca-bar-reach"') == 14  # a day without turns can be pointed at, too
    assert '<th scope="col">Failed or interrupted</th>' in text


def test_start_page_without_agents_says_what_to_do(editor: Client) -> None:
    assert "Create the first agent" in editor.get("/admin/").content.decode()


def test_start_page_of_somebody_without_a_role(sign_in: Callable[..., Client]) -> None:
    from tests.factories import make_user

    make_agent(name="Secret agent")
    text = sign_in("", user=make_user(is_staff=True)).get("/admin/").content.decode()
    assert "no role was given to you yet" in text
    assert "Secret agent" not in text


@pytest.mark.parametrize(
    ("highest", "ticks"), [(0, "0 1"), (1, "0 1"), (4, "0 1 2 3 4"), (34, "0 10 20 30 40"), (1200, "0 500 1,000 1,500")]
)
def test_chart_has_whole_round_ticks_that_reach_the_highest_bar(highest: int, ticks: str) -> None:
    chart = draw_turns([Day(day=date(2026, 1, 1), turns=highest, broken=0), Day(day=date(2026, 1, 2), turns=0, broken=0)])
    assert [value for _, value in chart.ticks] == ticks.split()
    assert all(bar.y >= 0 and bar.height >= 0 for bar in chart.bars)


@pytest.mark.parametrize(("name", "shown"), [("staging", True), ("", False)])
def test_header_names_the_environment(name: str, shown: bool, editor: Client) -> None:
    with override_settings(ENVIRONMENT_NAME=name):
        assert bool(editor.get("/admin/").context["environment"]) is shown


def test_admin_has_its_own_content_security_policy(editor: Client) -> None:
    admin_policy = editor.get("/admin/")["Content-Security-Policy"]
    assert "'unsafe-eval'" in admin_policy
    assert "default-src 'none'" in admin_policy
    assert "'unsafe-eval'" not in editor.get("/")["Content-Security-Policy"]


def test_paces_are_those_of_todays_answers(db: None, now: datetime) -> None:
    for first_token_ms in (100, 200, 300):
        add_turn("quick", at=now)
        Turn.objects.filter(agent="quick", first_token_ms=None).update(
            first_token_ms=first_token_ms, created_at=now, finished_at=now + timedelta(seconds=2)
        )
    add_turn("quick", at=now, state=TurnState.FAILED)
    add_turn("quick", at=now - timedelta(days=2))
    [pace] = paces_today(["quick", "silent"])
    assert (pace.agent, pace.turns, pace.whole_s) == ("quick", 3, 2)
    assert pace.first_token_s == pytest.approx(0.29)


@pytest.fixture
def troubled_day(db: None, now: datetime) -> str:
    """A day with an incident and a budget of which most is spent; returns the budget's name."""
    make_agent()
    budget = Budget.objects.create(name=unique("budget"), limit_usd=Decimal(10))
    period = {"starts_at": now - timedelta(hours=1), "ends_at": now + timedelta(hours=1)}
    BudgetPeriod.objects.create(budget=budget, spent_usd=Decimal(9), **period)
    rule = AlertRule.objects.get(kind="budget")
    seen = {"first_seen_at": now, "last_seen_at": now, "opened_at": now}
    Incident.objects.create(rule=rule, subject=unique("incident"), name="a budget", text="It is nearly spent.", value=0.9, **seen)
    return budget.name


def test_operators_see_health_alerts_cost_and_budgets(sign_in: Callable[..., Client], troubled_day: str) -> None:
    response = sign_in("operator").get("/admin/")
    today, text = response.context["today"], response.content.decode()
    assert set(today) >= {"health", "incidents", "cost", "dearest", "budgets", "slowest", "pace_chart"}
    assert [budget.name for budget, _ in today["budgets"]] == [troubled_day]
    for words in (troubled_day, "90 %", "It is nearly spent.", "goes on", "Dearest agents today", "Nobody was answered yet today"):
        assert words in text


def test_editors_see_no_health_alerts_cost_or_budgets(editor: Client, troubled_day: str) -> None:
    response = editor.get("/admin/")
    assert set(response.context["today"]) == {"slowest", "pace_chart", "hours"}
    assert troubled_day not in response.content.decode()


def test_what_cannot_be_read_in_time_is_said_and_logged_and_the_rest_is_shown(
    sign_in: Callable[..., Client], troubled_day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FIGURE_S", 3.0)
    monkeypatch.setattr("agents.admin.today.latest_incidents", wait_for_long)
    with capture_logs() as lines:
        response = sign_in("operator").get("/admin/")
    assert response.context["today"]["incidents"] is None
    text = response.content.decode()
    assert "Could not be read in time." in text
    assert troubled_day in text
    [line] = [line for line in lines if line["event"] == "not read in time"]
    assert line["what"] == "alerts"


def test_a_fault_is_not_taken_for_a_lack_of_time(
    sign_in: Callable[..., Client], troubled_day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide(*_: object, **__: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")

    monkeypatch.setattr("agents.admin.today.latest_incidents", divide)
    with pytest.raises(DataError):
        sign_in("operator").get("/admin/")


def wait_for_long(*_: object, **__: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(40)")


_OF_OVERVIEW = ("turns_today", "breakages_today", "turns_by_day", "glance_at")
_OF_TODAY = (
    *("paces_today", "paces_by_hour", "report_usage", "fullest_budgets", "latest_incidents"),
    *("look_at_work", "look_at_breakers", "look_at_alert_targets"),
)


@pytest.fixture
def _busy_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that the page asks about is told within 40 s, but which agents there are."""
    for name in _OF_OVERVIEW:
        monkeypatch.setattr(f"agents.admin.overview.{name}", wait_for_long)
    for name in _OF_TODAY:
        monkeypatch.setattr(f"agents.admin.today.{name}", wait_for_long)


@pytest.mark.usefixtures("_busy_database")
@pytest.mark.parametrize(
    ("figure_s", "page_s", "missing"),
    [
        # Turns and what broke (a figure and a card each), the chart, health's three, alerts, paces twice, cost twice, budgets, agents.
        pytest.param(1.0, 60.0, 14, id="each"),
        pytest.param(60.0, 2.0, 15, id="all together"),  # the checks of health, too
    ],
)
def test_every_question_of_the_page_has_a_deadline(
    sign_in: Callable[..., Client], troubled_day: str, monkeypatch: pytest.MonkeyPatch, figure_s: float, page_s: float, missing: int
) -> None:
    client = sign_in("operator")
    monkeypatch.setattr(reading, "FIGURE_S", figure_s)
    monkeypatch.setattr(reading, "PAGE_S", page_s)
    began_at = time.monotonic()
    response = client.get("/admin/")
    assert response.status_code == 200
    assert time.monotonic() - began_at < 30, "it waited for an answer that takes 40 s"
    text = response.content.decode().lower()
    assert text.count("could not be read in time") == missing
    assert "no turns yet" not in text


def test_without_even_the_agents_the_page_says_so(editor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent()
    monkeypatch.setattr(reading, "PAGE_S", 0.0)
    text = editor.get("/admin/").content.decode()
    assert "The agents could not be read in time" in text
    assert agent.slug not in text
    assert "no role was given" not in text


def test_paces_by_hour_are_of_the_newest_answers(db: None, now: datetime) -> None:
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    for at, first_token_ms in ((this_hour, 100), (this_hour - timedelta(seconds=1), 700), (this_hour - timedelta(hours=2), None)):
        add_turn("hourly", at=at)
        Turn.objects.filter(agent="hourly", created_at=at).update(first_token_ms=first_token_ms)
    add_turn("other", at=now)
    hours = paces_by_hour(agents=["hourly"], hours=3)
    assert [(hour.turns, hour.first_token_s) for hour in hours] == [(0, None), (1, 0.7), (1, 0.1)]
    assert [hour.began_at for hour in hours] == [this_hour - timedelta(hours=offset) for offset in (2, 1, 0)]


def test_chart_of_paces_has_seconds_and_says_where_nobody_was_answered(now: datetime) -> None:
    hours = [Hour(began_at=now, turns=3, first_token_s=0.84), Hour(began_at=now, turns=0, first_token_s=None)]
    chart = draw_paces(hours)
    assert chart.unit == "seconds"
    assert [value for _, value in chart.ticks] == ["0", "0.5", "1"]
    assert [bar.column.cells[0] for bar in chart.bars] == ["0.84 s", "nobody was answered"]


def test_health_tells_of_checks_breakers_and_targets_each_with_a_remedy(
    sign_in: Callable[..., Client], troubled_day: str, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def complain() -> None:
        raise Unhealthy("the shelf is empty; fill it")

    monkeypatch.setattr("observability.health._checks", {})
    monkeypatch.setattr("agents.admin.today.FIGURE_S", 0.05)
    for check in (HealthCheck("well", settle), HealthCheck("hung", hang, remedy="Pull the plug."), HealthCheck("shelf", complain, False)):
        register_health_check(check)
    Breaker.objects.create(provider="openai", model="gpt-shaky", opened_at=now, seen_at=now, reason="5 failures in a row")
    target = AlertTarget.objects.create(name=unique("target"), kind="slack")
    notice = {"telling": "opened", "created_at": now, "due_at": now, "last_error": "HTTP 500"}
    Notice.objects.create(target=target, incident=Incident.objects.get(), **notice)
    response = sign_in("operator").get("/admin/")
    found = dict(response.context["today"]["health"])
    assert found["well"].grade is Grade.OK
    assert (found["hung"].grade, found["hung"].remedy) == (Grade.FAILED, "Pull the plug.")
    assert (found["shelf"].grade, found["shelf"].seen) == (Grade.WARNING, "the shelf is empty; fill it")
    assert "breaker_open.md" in found["model gpt-shaky at openai"].remedy
    assert "Send test" in found[f"alert target {target.name}"].remedy
    text = response.content.decode()
    for words in ("no answer within 0.05 s", "Pull the plug.", "5 failures in a row", "HTTP 500"):
        assert words in text


async def settle() -> None:
    """A check that finds nothing."""


def test_agents_are_links_to_their_pages(sign_in: Callable[..., Client], now: datetime) -> None:
    agent = make_agent()
    page = f'href="/admin/agents/agent/{agent.pk}/change/"'
    client = sign_in("operator")
    before = client.get("/admin/").content.decode().count(page)
    add_turn(agent.slug, at=now, state=TurnState.FAILED, error_code="upstream-timeout")
    add_turn(agent.slug, at=now)
    Turn.objects.filter(agent=agent.slug, state=TurnState.DONE).update(first_token_ms=100)
    assert client.get("/admin/").content.decode().count(page) == before + 2  # among the failures, and among the slow
