"""Agents as files: what applying one does to the agent of its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents.models import Agent, AgentVersion
from agents.versions.documents import Applied, DraftInTheWay, apply_document, document_of, export_agent, read_document
from agents.versions.drafts import draft_of, start_draft
from agents.versions.publishing import NotPublishable, publish
from agents.versions.schema import AgentDocument, DocumentError
from tests.factories import make_agent, make_provider, make_user, make_version, unique


def document(**fields: Any) -> str:
    return json.dumps({"slug": "a", "name": "A", "system_prompt": "Hello"} | fields)


def changed(agent: Agent, **values: Any) -> AgentDocument:
    version = draft_of(agent) or agent.live_version
    assert version is not None
    return document_of(agent, version).model_copy(update=values)


def test_a_new_agent_is_created_as_a_draft(db: None) -> None:
    slug = unique("made")
    applied = apply_document(read_document(document(slug=slug)), author=None)
    agent = Agent.objects.get(slug=slug)
    assert (applied.action, applied.version, agent.live_version) == ("created", 1, None)


def test_a_difference_becomes_a_draft_and_then_nothing(db: None) -> None:
    agent = make_agent(greeting="one")
    wanted = changed(agent, greeting="two", note="why")
    applied = apply_document(wanted, author=None)
    assert (applied.action, applied.version, [change.field for change in applied.changes]) == ("drafted", 2, ["greeting"])
    draft = draft_of(agent)
    assert draft is not None
    assert (draft.greeting, draft.note) == ("two", "why")
    assert apply_document(wanted, author=None).action == "unchanged"
    assert apply_document(wanted, author=None, publish=True).action == "published"
    assert apply_document(wanted, author=None, publish=True).action == "unchanged"
    agent.refresh_from_db()
    assert agent.live_version == draft


def test_a_dry_run_changes_nothing(db: None) -> None:
    agent = make_agent(greeting="one", description="")
    applied = apply_document(changed(agent, greeting="two", description="new"), author=None, dry_run=True, publish=True)
    assert applied.action == "published"
    agent.refresh_from_db()
    assert (agent.description, agent.versions.count(), agent.publications.count()) == ("", 1, 1)


def test_what_belongs_to_the_agent_takes_effect_without_a_version(db: None) -> None:
    agent = make_agent()
    applied = apply_document(changed(agent, name="New", active=False, access="key"), author=None)
    agent.refresh_from_db()
    assert (applied.action, agent.name, agent.is_active, agent.access, agent.versions.count()) == ("updated", "New", False, "key", 1)
    assert [(change.field, change.new) for change in applied.agent_changes] == [("name", "New"), ("access", "key"), ("active", "no")]


def test_a_note_alone_is_no_reason_for_a_version(db: None) -> None:
    agent = make_agent()
    assert apply_document(changed(agent, note="other"), author=None, publish=True) == Applied(agent.slug, "unchanged", 1)


def test_a_version_that_was_live_before_is_made_live_again(db: None) -> None:
    agent = make_agent(greeting="one")
    second = make_version(agent, greeting="two")
    from agents.versions.publishing import roll_back

    roll_back(agent, to=agent.versions.get(number=1), actor=None)
    agent.refresh_from_db()
    applied = apply_document(changed(agent, greeting="two"), author=None, publish=True)
    agent.refresh_from_db()
    assert (applied.action, agent.live_version, agent.versions.count()) == ("made live again", second, 2)


def test_a_colleagues_draft_is_not_overwritten(db: None) -> None:
    agent, colleague = make_agent(greeting="one"), make_user()
    unchanged = changed(agent)
    start_draft(agent, author=colleague)
    agent.versions.filter(published_at=None).update(greeting="theirs")
    wanted = unchanged.model_copy(update={"greeting": "two"})
    with pytest.raises(DraftInTheWay, match=f"version 2 by {colleague.username}"):
        apply_document(wanted, author=None, publish=True)
    assert apply_document(unchanged, author=None).action == "unchanged", "the file says what is live; the draft is left alone"
    assert apply_document(wanted, author=None, replace_draft=True).action == "drafted"
    draft = draft_of(agent)
    assert draft is not None
    assert (draft.greeting, draft.author) == ("two", None), "the colleague did not write these words"


def test_ones_own_draft_is_rewritten(db: None) -> None:
    agent, person = make_agent(greeting="one"), make_user()
    apply_document(changed(agent, greeting="two"), author=person)
    assert apply_document(changed(agent, greeting="three"), author=person).action == "drafted"
    assert agent.versions.count() == 2


def test_an_unknown_provider_is_named_with_those_that_exist(db: None) -> None:
    known = make_provider().slug
    wanted = read_document(document(provider="nobody", fallbacks=[{"provider": "no-one"}]))
    with pytest.raises(DocumentError, match=known) as caught:
        apply_document(wanted, author=None, source="a.yaml")
    assert set(caught.value.fields) == {"provider", "fallbacks.1.provider"}


def test_an_incomplete_version_is_not_published_and_nothing_stays(db: None) -> None:
    slug = unique("incomplete")
    with pytest.raises(NotPublishable, match="default model"):
        apply_document(read_document(document(slug=slug, provider=make_provider(default_model="").slug)), author=None, publish=True)
    assert not Agent.objects.filter(slug=slug).exists()


def test_the_draft_can_be_exported_instead(db: None) -> None:
    agent = make_agent(greeting="live")
    draft = start_draft(agent, author=None)
    AgentVersion.objects.filter(pk=draft.pk).update(greeting="drafted")
    assert read_document(export_agent(agent)).greeting == "live"
    assert read_document(export_agent(agent, draft=True)).greeting == "drafted"
    publish(AgentVersion.objects.get(pk=draft.pk), actor=None)
    assert read_document(export_agent(Agent.objects.get(pk=agent.pk), draft=True)).greeting == "drafted"
