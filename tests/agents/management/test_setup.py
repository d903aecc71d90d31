"""`manage.py setup`: what a new server needs, once, however often and by however many it is run."""

from __future__ import annotations

import io
import re
import threading
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from agents.models import Agent, Provider, Publication
from agents.versions.formats import dump, parse
from observability.models import ModelPrice
from tests.factories import make_agent, make_provider, make_user

EXAMPLES = {"companion", "sales", "support"}
DEMO = "http://127.0.0.1:9/v1"


def empty() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE agents_agent, agents_agentversion, agents_versionfallback, agents_publication, agents_provider, auth_user CASCADE"
        )


@pytest.fixture
def environment(settings: Any) -> Any:
    settings.OPENAI_API_KEY = settings.OPENAI_BASE_URL = settings.DEFAULT_CHAT_MODEL = ""
    settings.DEMO_MODEL_URL, settings.ENVIRONMENT_NAME = DEMO, "development"
    return settings


@pytest.fixture
def fresh(db: None, environment: Any) -> None:
    empty()


def setup(*arguments: str) -> str:
    output = io.StringIO()
    call_command("setup", *arguments, stdout=output)
    return output.getvalue()


def test_a_fresh_server_gets_everything(fresh: None) -> None:
    output = setup()
    agents = Agent.objects.select_related("live_version")
    assert {agent.slug for agent in agents if agent.live_version and agent.is_active and agent.access == "public"} == EXAMPLES
    assert all(agent.live_version and agent.live_version.greeting for agent in agents)
    assert Provider.objects.get(is_default=True).is_demo
    assert set(Group.objects.values_list("name", flat=True)) >= {"editors", "operators"}
    assert "demo model, not for real answers" in output
    companion = Agent.objects.get(slug="companion").live_version
    assert companion is not None
    assert companion.memory_enabled
    support = Agent.objects.get(slug="support").live_version
    assert support is not None
    assert "password" in support.system_prompt.lower()


def test_the_superusers_password_is_printed_once_and_works(fresh: None) -> None:
    password = re.search(r"password (\S+)", setup())
    assert password
    admin = User.objects.get()
    assert (admin.username, admin.is_superuser) == ("admin", True)
    assert admin.check_password(password[1])
    assert "password" not in setup()


def test_repeating_changes_nothing(fresh: None) -> None:
    setup()
    before = (Agent.objects.count(), Publication.objects.count(), User.objects.count(), list(Provider.objects.values()))
    setup()
    assert (Agent.objects.count(), Publication.objects.count(), User.objects.count(), list(Provider.objects.values())) == before


def test_what_people_made_stays_alone(fresh: None) -> None:
    make_user()
    own = make_agent(provider=make_provider())
    setup()
    assert list(Agent.objects.all()) == [own]
    assert not User.objects.filter(username="admin").exists()


def test_parts_can_be_left_out(fresh: None) -> None:
    setup("--no-examples", "--no-admin")
    assert not Agent.objects.exists()
    assert not User.objects.exists()
    assert Provider.objects.filter(is_default=True).exists()


def test_without_any_model_the_examples_wait_as_drafts(fresh: None, environment: Any) -> None:
    environment.DEMO_MODEL_URL = ""
    output = setup()
    assert "set OPENAI_API_KEY" in output
    assert "as drafts" in output
    assert set(Agent.objects.filter(live_version=None).values_list("slug", flat=True)) == EXAMPLES


def test_what_does_not_work_is_said(fresh: None, environment: Any) -> None:
    environment.OPENAI_BASE_URL = DEMO
    output = setup()
    assert "set DEFAULT_CHAT_MODEL" in output
    assert f"cannot be reached at {DEMO}" in output


def test_a_database_that_is_not_migrated_is_named(fresh: None) -> None:
    [newest] = MigrationLoader(connection).graph.leaf_nodes("agents")
    MigrationRecorder(connection).record_unapplied(*newest)
    with pytest.raises(CommandError, match=r"manage\.py migrate"):
        setup()
    assert not Provider.objects.exists()


def test_the_examples_are_written_as_exports_are() -> None:
    from agents.management.commands.setup import EXAMPLES as FOLDER

    files = sorted(FOLDER.glob("*.yaml"))
    assert {file.stem for file in files} == EXAMPLES
    for file in files:
        text = file.read_text(encoding="utf-8")
        document = parse(text, source=file.name)
        assert document.slug == file.stem
        assert dump(document) == text
        assert len(document.system_prompt) < 1_500, "the demo model has a small context"


@pytest.mark.django_db(transaction=True)
def test_several_at_once_do_it_once(environment: Any) -> None:
    empty()
    outputs: list[str] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outputs.append(setup())
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert errors == []
    assert len(outputs) == 4
    assert sum("password" in output for output in outputs) == 1
    assert Agent.objects.count() == Publication.objects.count() == 3
    assert User.objects.count() == Provider.objects.count() == 1


def test_models_of_a_public_vendor_are_priced(fresh: None, environment: Any) -> None:
    environment.OPENAI_API_KEY, environment.DEFAULT_CHAT_MODEL = "sk-test", "gpt-5-mini"
    assert "unknown" not in setup()
    assert ModelPrice.objects.get(provider="openai", model="gpt-5-mini").output_usd == 2
    setup()
    assert ModelPrice.objects.filter(provider="openai", model="gpt-5-mini").count() == 1


def test_what_has_no_known_price_is_said(fresh: None, environment: Any) -> None:
    environment.OPENAI_BASE_URL, environment.DEFAULT_CHAT_MODEL = "http://127.0.0.1:9/v1", "my-model"
    assert "The price of my-model at environment is unknown: enter it in the admin under Prices" in setup()
