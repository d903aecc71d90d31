"""The start page and what it counts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta

import pytest
from django.test import Client, override_settings
from django.utils import timezone

from agents.admin.overview import draw_chart
from memory.api import Day, breakages_today, turns_by_day, turns_today
from memory.models import Conversation, Subject, Turn, TurnState
from tests.factories import make_agent


def add_turn(agent: str, *, at: datetime, state: TurnState = TurnState.DONE, error_code: str = "") -> None:
    subject, _ = Subject.objects.get_or_create(owner="anonymous", name="s")
    conversation, _ = Conversation.objects.get_or_create(owner="anonymous", agent=agent, session_id="s", defaults={"subject": subject})
    Turn.objects.create(
        id=uuid.uuid4(), conversation=conversation, seq=conversation.turns.count() + 1, state=state, agent=agent, version=1, message="Hi",
        error_code=error_code, created_at=at, deadline_at=at + timedelta(minutes=1), finished_at=at,
    )  # fmt: skip


@pytest.fixture
def now() -> datetime:
    return timezone.now()


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


def test_start_page_shows_todays_numbers(editor: Client, now: datetime) -> None:
    agent = make_agent()
    add_turn(agent.slug, at=now)
    add_turn(agent.slug, at=now, state=TurnState.FAILED, error_code="upstream-timeout")
    response = editor.get("/admin/")
    assert response.context["turns_today"] == 2
    text = response.content.decode()
    assert "upstream-timeout" in text
    assert 'role="img"' in text
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
    ("highest", "ticks"), [(0, [0, 1]), (1, [0, 1]), (4, [0, 1, 2, 3, 4]), (34, [0, 10, 20, 30, 40]), (1200, [0, 500, 1000, 1500])]
)
def test_chart_has_whole_round_ticks_that_reach_the_highest_bar(highest: int, ticks: list[int]) -> None:
    chart = draw_chart([Day(day=date(2026, 1, 1), turns=highest, broken=0), Day(day=date(2026, 1, 2), turns=0, broken=0)])
    assert [value for _, value in chart.ticks] == ticks
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
