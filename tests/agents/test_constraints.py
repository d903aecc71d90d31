"""What the database refuses by itself, asked in raw SQL and through the ORM."""

from __future__ import annotations

import threading
import time

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError

from agents.models import Agent, AgentVersion, Publication, VersionFallback
from agents.versions.drafts import discard_draft, draft_of, start_draft
from agents.versions.publishing import publish
from tests.factories import make_agent, make_provider, make_user, make_version


def run(sql: str, *values: object) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, values)
        assert cursor.rowcount > 0, "the statement met no row, so it tested nothing"


def refused(rule: str, sql: str, *values: object) -> None:
    with pytest.raises(IntegrityError) as caught:
        run(sql, *values)
    assert caught.value.__cause__.diag.constraint_name == rule


@pytest.fixture
def agent(db: None) -> Agent:
    agent = make_agent(author=make_user())
    draft = start_draft(agent, author=None)
    VersionFallback.objects.create(version=draft, position=1, provider=make_provider())
    publish(draft, actor=make_user())
    agent.refresh_from_db()
    return agent


COLUMNS = {
    "system_prompt": "other",
    "greeting": "other",
    "model": "other",
    "provider_id": None,
    "temperature": 1.5,
    "top_p": 0.5,
    "max_output_tokens": 7,
    "prompt_budget_tokens": 700,
    "simple_provider_id": 7,
    "simple_model": "other",
    "simple_max_chars": 7,
    "simple_not_words": ["other"],
    "classifier_enabled": True,
    "classifier_provider_id": 7,
    "classifier_model": "other",
    "classifier_instruction": "other",
    "memory_enabled": True,
    "memory_scope": "session",
    "memory_limit": 7,
    "memory_budget_tokens": 7,
    "memory_threshold": 7.5,
    "memory_cap": 7,
    "memory_days": 7,
    "knowledge": ["other"],
    "facts_by_model": True,
    "summaries": True,
    "summary_provider_id": 7,
    "summary_model": "other",
    "conversation_days": 7,
    "trace_days": 3,
    "reply_cache_s": 7,
    "reply_similarity": 0.9,
    "note": "other",
    "created_at": "2001-01-01T00:00:00Z",
    "updated_at": "2001-01-01T00:00:00Z",
    "published_at": "2001-01-01T00:00:00Z",
}


def test_every_column_is_tried() -> None:
    columns = {field.column for field in AgentVersion._meta.concrete_fields}
    assert columns - {"id", "agent_id", "number", "author_id"} == set(COLUMNS)


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_of_a_published_version_changes(agent: Agent, column: str) -> None:
    refused(
        "published_version_is_immutable",
        f"UPDATE agents_agentversion SET {column} = %s WHERE id = %s",  # noqa: S608 - names from above
        COLUMNS[column],
        agent.live_version_id,
    )


def test_a_published_version_is_never_a_draft_again(agent: Agent) -> None:
    refused("published_version_is_immutable", "UPDATE agents_agentversion SET published_at = NULL WHERE id = %s", agent.live_version_id)


def test_a_published_version_is_never_deleted(agent: Agent) -> None:
    refused("published_version_is_immutable", "DELETE FROM agents_agentversion WHERE id = %s", agent.live_version_id)


def test_the_orm_is_refused_too(agent: Agent) -> None:
    version = agent.live_version
    assert version is not None
    version.greeting = "other"
    with pytest.raises(IntegrityError, match="cannot be changed"), transaction.atomic():
        version.save()
    with pytest.raises((IntegrityError, ProtectedError)), transaction.atomic():
        agent.delete()
    assert Agent.objects.filter(pk=agent.pk).exists()


@pytest.mark.parametrize("column", ["agent_id", "number", "id"])
def test_a_version_keeps_its_agent_and_number_even_as_a_draft(agent: Agent, column: str) -> None:
    draft = start_draft(agent, author=None)
    refused(
        "version_identity_is_fixed",
        f"UPDATE agents_agentversion SET {column} = {column} + 1000000 WHERE id = %s",  # noqa: S608 - names from above
        draft.pk,
    )


def test_a_draft_changes_and_goes(agent: Agent) -> None:
    draft = start_draft(agent, author=None)
    run("UPDATE agents_agentversion SET greeting = 'other' WHERE id = %s", draft.pk)
    assert draft.fallbacks.count() == 1
    discard_draft(agent)
    assert draft_of(agent) is None


def test_an_agent_that_was_never_published_can_be_deleted(db: None) -> None:
    agent = make_agent(published=False)
    agent.delete()
    assert not Agent.objects.filter(slug=agent.slug).exists()


def test_fallbacks_of_a_published_version_never_change(agent: Agent) -> None:
    rule = "published_version_is_immutable"
    live, draft = agent.live_version_id, start_draft(agent, author=None).pk
    refused(rule, "INSERT INTO agents_versionfallback (version_id, position, model) VALUES (%s, 2, 'x')", live)
    refused(rule, "UPDATE agents_versionfallback SET model = 'x' WHERE version_id = %s", live)
    refused(rule, "UPDATE agents_versionfallback SET version_id = %s, position = 9 WHERE version_id = %s", draft, live)
    refused(rule, "UPDATE agents_versionfallback SET version_id = %s, position = 9 WHERE version_id = %s", live, draft)
    refused(rule, "DELETE FROM agents_versionfallback WHERE version_id = %s", live)
    run("UPDATE agents_versionfallback SET model = 'x' WHERE version_id = %s", draft)
    run("DELETE FROM agents_versionfallback WHERE version_id = %s", draft)


def test_only_a_published_version_of_the_same_agent_is_live(agent: Agent) -> None:
    other = make_agent()
    draft = start_draft(agent, author=None)
    sql = "UPDATE agents_agent SET live_version_id = %s WHERE id = %s"
    refused("live_version_is_published", sql, draft.pk, agent.pk)
    refused("live_version_is_of_same_agent", sql, other.live_version_id, agent.pk)
    run(sql, agent.versions.get(number=1).pk, agent.pk)


def test_a_slug_never_changes(agent: Agent) -> None:
    refused("agent_slug_is_fixed", "UPDATE agents_agent SET slug = 'other' WHERE id = %s", agent.pk)
    agent.name = "Another name"
    agent.save()


def test_publications_are_append_only(agent: Agent) -> None:
    rule = "publications_are_append_only"
    refused(rule, "UPDATE agents_publication SET at = now() WHERE agent_id = %s", agent.pk)
    refused(rule, "UPDATE agents_publication SET kind = 'roll_back', actor_id = NULL WHERE agent_id = %s", agent.pk)
    refused(rule, "UPDATE agents_publication SET actor_id = %s WHERE agent_id = %s", make_user().pk, agent.pk)
    refused(rule, "DELETE FROM agents_publication WHERE agent_id = %s", agent.pk)
    assert agent.publications.count() == 2


def test_a_publication_names_a_version_of_its_own_agent(agent: Agent) -> None:
    refused(
        "published_version_is_of_same_agent",
        "INSERT INTO agents_publication (agent_id, version_id, kind, at) VALUES (%s, %s, 'publish', now())",
        make_agent().pk,
        agent.live_version_id,
    )


def test_deleting_a_person_keeps_what_they_published(db: None) -> None:
    person = make_user()
    agent = make_agent(author=person)
    person.delete()
    version = AgentVersion.objects.get(agent=agent)
    assert version.author_id is None
    assert version.published_at is not None
    assert Publication.objects.get(agent=agent).actor_id is None


def test_an_author_is_never_replaced(agent: Agent) -> None:
    refused(
        "published_version_is_immutable",
        "UPDATE agents_agentversion SET author_id = %s WHERE id = %s",
        make_user().pk,
        agent.versions.get(number=1).pk,
    )


@pytest.mark.django_db(transaction=True)
def test_a_fallback_cannot_slip_in_beside_a_publication() -> None:
    """Publishing holds the version's row; an insert that began before must wait, then be refused."""
    agent = make_agent()
    draft = start_draft(agent, author=None)
    outcome: list[object] = []

    def insert() -> None:
        try:
            VersionFallback.objects.create(version_id=draft.pk, position=1, model="late")
            outcome.append("inserted")
        except IntegrityError as error:
            outcome.append(error.__cause__.diag.constraint_name)
        finally:
            connection.close()

    with transaction.atomic():
        publish(draft, actor=None)
        thread = threading.Thread(target=insert)
        thread.start()
        _wait_for_a_lock()
        assert outcome == []
    thread.join(timeout=60)
    assert outcome == ["published_version_is_immutable"]
    assert draft.fallbacks.count() == 0


def _wait_for_a_lock() -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            # Within a transaction PostgreSQL shows the same activity for ever, unless it is told to look again.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ILIKE '%fallback%'"
            )
            if cursor.fetchone() != (0,):
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits for the version's row")


@pytest.mark.django_db(transaction=True)
def test_the_rules_can_be_taken_out_and_put_back() -> None:
    agent = make_agent(knowledge=["handbook"])
    call_command("migrate", "agents", "0001", verbosity=0)
    try:
        run("UPDATE agents_agentversion SET greeting = 'changed' WHERE id = %s", agent.live_version_id)
    finally:
        call_command("migrate", "agents", verbosity=0)
    refused("published_version_is_immutable", "UPDATE agents_agentversion SET greeting = 'x' WHERE id = %s", agent.live_version_id)
    agent.live_version.refresh_from_db()
    assert (agent.live_version.knowledge, agent.live_version.memory_cap) == ([], 5000), "published versions have later columns' defaults"
    make_version(agent, greeting="a new version")
