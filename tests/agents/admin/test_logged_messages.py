"""The switch that lets the log hold what is said to an agent: who may use it, what it says of itself, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from structlog.testing import capture_logs

from agents.models import Agent
from tests.factories import make_agent, make_user

SHOWN = "is written to the log until"


@pytest.fixture
def agent(db: None) -> Agent:
    return make_agent()


def post(client: Client, agent: Agent, minutes: object) -> int:
    return client.post(f"/admin/agents/agent/{agent.pk}/log-messages/", {"minutes": minutes}).status_code


def test_an_operator_switches_it_on_and_off(sign_in: Callable[..., Client], agent: Agent) -> None:
    user = make_user(role="operator")
    operator = sign_in("operator", user=user)
    page = f"/admin/agents/agent/{agent.pk}/settings/"
    assert SHOWN not in operator.get(page).content.decode()
    with capture_logs() as lines:
        assert post(operator, agent, 15) == 302
    agent.refresh_from_db()
    assert agent.log_messages_until is not None
    assert timedelta(minutes=14) < agent.log_messages_until - datetime.now(UTC) <= timedelta(minutes=15)
    assert [(line["agent"], line["by"]) for line in lines if line["event"] == "logging of messages switched"] == [
        (agent.slug, user.get_username())
    ]
    for tab in ("settings", "versions", "memory"):
        assert SHOWN in operator.get(f"/admin/agents/agent/{agent.pk}/{tab}/").content.decode()
    shown = operator.get(page).content.decode()
    assert f"{user}: Messages are logged until" in shown
    assert "Stop now" in shown
    assert post(operator, agent, 0) == 302
    agent.refresh_from_db()
    assert agent.log_messages_until is None
    shown = operator.get(page).content.decode()
    assert SHOWN not in shown
    assert f"{user}: Messages are no longer logged." in shown


def test_it_ends_by_itself(sign_in: Callable[..., Client], agent: Agent) -> None:
    Agent.objects.filter(pk=agent.pk).update(log_messages_until=datetime.now(UTC) - timedelta(seconds=1))
    shown = sign_in("operator").get(f"/admin/agents/agent/{agent.pk}/settings/").content.decode()
    assert SHOWN not in shown
    assert "Stop now" not in shown


@pytest.mark.parametrize(("role", "status"), [("editor", 403), ("", 302), (None, 302)])
def test_nobody_else_may(sign_in: Callable[..., Client], agent: Agent, role: str | None, status: int) -> None:
    assert post(sign_in(role), agent, 15) == status
    agent.refresh_from_db()
    assert agent.log_messages_until is None
    if role == "editor":
        shown = sign_in(role).get(f"/admin/agents/agent/{agent.pk}/settings/").content.decode()
        assert "Only those who may read conversations" in shown


@pytest.mark.parametrize("minutes", ["", "-1", "15000", "abc", "16"])
def test_only_the_three_durations(sign_in: Callable[..., Client], agent: Agent, minutes: str) -> None:
    assert post(sign_in("operator"), agent, minutes) == 404
    assert sign_in("operator").get(f"/admin/agents/agent/{agent.pk}/log-messages/").status_code == 405
