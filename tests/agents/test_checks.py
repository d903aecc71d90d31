"""System checks: each meets its condition, and none harms a database without tables."""

from __future__ import annotations

import io
import socket
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection

from agents.checks import check_agents, check_providers, check_reachable
from agents.models import Agent, Provider
from agents.providers.keys import seal
from agents.versions.drafts import draft_of
from agents.versions.publishing import publish
from tests.factories import make_agent, make_provider

DATABASES = ["default"]


@pytest.fixture(autouse=True)
def clean(db: None, settings: Any) -> None:
    Provider.objects.update(is_default=False)
    Agent.objects.update(is_active=False)
    settings.ENVIRONMENT_NAME = "development"


def ids(messages: list[Any]) -> list[str]:
    assert all(message.hint for message in messages), "each names a remedy"
    return [message.id for message in messages]


def test_a_sound_server_has_nothing_to_report() -> None:
    make_agent(provider=make_provider(is_default=True, encrypted_key=seal("key")))
    assert ids(check_providers(databases=DATABASES) + check_agents(databases=DATABASES)) == []


def test_a_missing_variable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    make_provider(is_default=True, key_variable="EXAMPLE_API_KEY")
    assert ids(check_providers(databases=DATABASES)) == ["agents.W001"]
    monkeypatch.setenv("EXAMPLE_API_KEY", "key")
    assert ids(check_providers(databases=DATABASES)) == []


def test_a_key_for_background_work_is_a_key_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXAMPLE_API_KEY", raising=False)
    agent = make_agent(published=False, provider=make_provider(), summary_provider=make_provider(key_variable="EXAMPLE_API_KEY"))
    assert "agents.W001" not in ids(check_providers(databases=DATABASES))
    publish(draft_of(agent), actor=None)
    assert "agents.W001" in ids(check_providers(databases=DATABASES))


def test_a_database_that_is_to_be_migrated_is_not_read() -> None:
    make_provider(is_default=True, key_variable="EXAMPLE_API_KEY")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE agents_agentversion DROP COLUMN summary_provider_id")
    assert check_providers(databases=DATABASES) == []


def test_an_unreadable_key_is_reported_where_a_live_agent_uses_it() -> None:
    broken = make_provider(encrypted_key="rubbish")
    assert ids(check_providers(databases=DATABASES)) == [], "nobody uses it"
    make_agent(provider=broken)
    assert ids(check_providers(databases=DATABASES)) == ["agents.W002"]


def test_an_unpublished_agent_is_reported_until_it_is_switched_off() -> None:
    agent = make_agent(published=False)
    messages = check_agents(databases=DATABASES)
    assert ids(messages) == ["agents.I003"]
    assert agent.slug in messages[0].msg
    Agent.objects.filter(pk=agent.pk).update(is_active=False)
    assert ids(check_agents(databases=DATABASES)) == []


def test_a_missing_default_is_reported_where_an_agent_relies_on_it() -> None:
    provider = make_provider(is_default=True)
    agent = make_agent(provider=None)
    Provider.objects.filter(pk=provider.pk).update(is_default=False)
    assert ids(check_providers(databases=DATABASES)) == ["agents.W004"]
    Agent.objects.filter(pk=agent.pk).update(is_active=False)
    assert ids(check_providers(databases=DATABASES)) == []


def test_the_demo_model_is_reported_outside_development(settings: Any) -> None:
    make_provider(is_default=True, is_demo=True)
    assert ids(check_providers(databases=DATABASES)) == []
    settings.ENVIRONMENT_NAME = "production"
    assert ids(check_providers(databases=DATABASES)) == ["agents.W005"]


def test_a_default_that_cannot_be_reached_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        make_provider(is_default=True, base_url=f"http://127.0.0.1:{port}/v1")
        assert ids(check_reachable(databases=DATABASES)) == []
    messages = check_reachable(databases=DATABASES)
    assert ids(messages) == ["agents.W006"]
    assert str(port) in messages[0].msg


def test_the_network_is_tried_in_deployment_checks_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        make_provider(is_default=True, base_url=f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        run_checks(databases=DATABASES)
        with pytest.raises(BlockingIOError):
            server.accept()
        run_checks(databases=DATABASES, include_deployment_checks=True)
        server.accept()[0].close()


def test_nothing_is_asked_without_a_database(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert check_providers() == check_agents() == check_reachable() == []


def test_tables_that_do_not_exist_yet_are_no_error() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA empty_for_checks")
        cursor.execute("SET LOCAL search_path TO empty_for_checks")
    assert check_providers(databases=DATABASES) == check_agents(databases=DATABASES) == check_reachable(databases=DATABASES) == []


def test_the_command_runs_them() -> None:
    agent = make_agent(published=False)
    errors = io.StringIO()
    call_command("check", databases=DATABASES, stderr=errors)
    assert f"(agents.I003) The agent {agent.slug}" in errors.getvalue()
