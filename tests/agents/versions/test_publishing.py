"""Drafts and publications, one at a time and twenty at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.utils import timezone

from agents.models import AgentVersion, Provider, Publication
from agents.versions.content import content_of, write_fallbacks
from agents.versions.drafts import SlugTaken, create_agent, discard_draft, draft_of, start_draft
from agents.versions.publishing import NotPublishable, NotRestorable, publish, roll_back
from tests.factories import make_agent, make_provider, make_user, make_version, unique


def test_an_agent_begins_with_a_draft(db: None) -> None:
    person = make_user()
    agent = create_agent(slug=unique("new"), name="New", author=person, system_prompt="Be kind.", temperature=0.5)
    draft = draft_of(agent)
    assert draft is not None
    assert (draft.number, draft.published_at, draft.author, draft.temperature) == (1, None, person, 0.5)
    assert agent.live_version is None


def test_a_slug_is_taken_once(db: None) -> None:
    agent = make_agent()
    with pytest.raises(SlugTaken, match=agent.slug):
        create_agent(slug=agent.slug, name="Again", author=None, system_prompt="x")
    assert agent.versions.count() == 1


def test_a_draft_copies_the_live_version(db: None) -> None:
    agent = make_agent(temperature=0.3, greeting="Hi", note="first")
    first = agent.live_version
    assert first is not None
    draft = start_draft(agent, author=None)
    assert draft.number == 2
    assert content_of(draft) == content_of(first)
    assert draft.note == "", "a note says what this version changes"


def test_a_draft_copies_fallbacks_in_order(db: None) -> None:
    agent = make_agent()
    draft = start_draft(agent, author=None)
    spare, other = make_provider(), make_provider()
    write_fallbacks(draft, fallbacks=[(spare.pk, "one"), (other.pk, ""), (spare.pk, "three")])
    publish(draft, actor=None)
    agent.refresh_from_db()
    again = start_draft(agent, author=None)
    assert content_of(again).fallbacks == ((spare.slug, "one"), (other.slug, ""), (spare.slug, "three"))


def test_a_draft_can_start_from_an_older_version(db: None) -> None:
    agent = make_agent(greeting="one")
    make_version(agent, greeting="two")
    assert start_draft(agent, author=None, based_on=agent.versions.get(number=1)).greeting == "one"


def test_a_draft_never_starts_from_a_strangers_version(db: None) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        start_draft(make_agent(), author=None, based_on=make_agent().live_version)


def test_the_draft_there_is_comes_back(db: None) -> None:
    agent = make_agent(published=False)
    assert start_draft(agent, author=make_user()) == draft_of(agent)
    assert agent.versions.count() == 1


def test_numbers_go_on_after_a_discarded_draft(db: None) -> None:
    agent = make_agent()
    start_draft(agent, author=None)
    discard_draft(agent)
    discard_draft(agent)
    assert start_draft(agent, author=None).number == 2


def test_publishing_moves_the_pointer_and_says_who(db: None) -> None:
    person = make_user()
    agent = make_agent()
    before = timezone.now()
    draft = start_draft(agent, author=person)
    publication = publish(draft, actor=person)
    agent.refresh_from_db()
    assert agent.live_version == draft
    assert draft.published_at is not None
    assert draft.published_at >= before
    assert (publication.kind, publication.actor, publication.version) == (Publication.Kind.PUBLISH, person, draft)


def test_somebody_without_an_account_can_be_the_actor(db: None) -> None:
    agent = make_agent(published=False)
    draft = draft_of(agent)
    assert draft is not None
    assert publish(draft, actor=AnonymousUser()).actor is None


def test_a_version_is_published_once(db: None) -> None:
    agent = make_agent()
    assert agent.live_version is not None
    with pytest.raises(NotPublishable, match="was published already"):
        publish(agent.live_version, actor=None)
    assert agent.publications.count() == 1


def test_a_discarded_draft_is_not_published(db: None) -> None:
    agent = make_agent(published=False)
    draft = draft_of(agent)
    assert draft is not None
    discard_draft(agent)
    with pytest.raises(NotPublishable, match="was discarded"):
        publish(draft, actor=None)


@pytest.mark.parametrize(
    ("break_it", "field", "words"),
    [
        (lambda draft: AgentVersion.objects.filter(pk=draft.pk).update(system_prompt=" \n "), "system_prompt", "Write the instructions"),
        (lambda draft: AgentVersion.objects.filter(pk=draft.pk).update(provider=None), "provider", "Choose a provider"),
        (lambda draft: Provider.objects.filter(pk=draft.provider_id).update(default_model=""), "model", "Name a model"),
        (
            lambda draft: AgentVersion.objects.filter(pk=draft.pk).update(
                classifier_enabled=True, classifier_provider=make_provider(default_model="")
            ),
            "classifier_model",
            "Name the model that is asked",
        ),
        (
            lambda draft: AgentVersion.objects.filter(pk=draft.pk).update(summary_provider=make_provider(default_model="")),
            "summary_model",
            "Name a model for summaries",
        ),
        (
            lambda draft: write_fallbacks(draft, fallbacks=[(make_provider(default_model="").pk, "")]),
            "fallbacks",
            "Fallback 1 needs a model",
        ),
        (lambda draft: write_fallbacks(draft, fallbacks=[(None, "x")]), "fallbacks", "Fallback 1 needs a provider"),
    ],
)
def test_an_incomplete_draft_is_refused_with_the_remedy(db: None, break_it: Callable[[AgentVersion], Any], field: str, words: str) -> None:
    Provider.objects.update(is_default=False)
    agent = make_agent(published=False, provider=make_provider())
    draft = draft_of(agent)
    assert draft is not None
    break_it(draft)
    with pytest.raises(NotPublishable, match=words) as caught:
        publish(draft, actor=None)
    assert list(caught.value.fields) == [field]
    assert caught.value.status == 409
    draft.refresh_from_db()
    assert draft.published_at is None
    assert agent.publications.count() == 0


def test_the_default_provider_completes_a_draft(db: None) -> None:
    make_provider(is_default=True)
    agent = make_agent(published=False, provider=None)
    draft = draft_of(agent)
    assert draft is not None
    publish(draft, actor=None)


def test_rolling_back_makes_the_old_version_itself_live(db: None) -> None:
    agent, person = make_agent(), make_user()
    first = agent.live_version
    assert first is not None
    make_version(agent)
    publication = roll_back(agent, to=first, actor=person)
    agent.refresh_from_db()
    assert agent.live_version == first
    assert (publication.kind, publication.actor) == (Publication.Kind.ROLL_BACK, person)
    assert [row.version.number for row in agent.publications.all()] == [1, 2, 1]


def test_rolling_back_refuses_what_makes_no_sense(db: None) -> None:
    agent = make_agent()
    live = agent.live_version
    other = make_agent().live_version
    assert live is not None
    assert other is not None
    with pytest.raises(NotRestorable, match="is a draft"):
        roll_back(agent, to=start_draft(agent, author=None), actor=None)
    with pytest.raises(NotRestorable, match="is live already"):
        roll_back(agent, to=live, actor=None)
    with pytest.raises(NotRestorable, match="another agent"):
        roll_back(agent, to=other, actor=None)
    assert agent.publications.count() == 1


def at_once(count: int, act: Callable[[], Any]) -> list[Any]:
    """Return what `count` simultaneous calls in threads of their own return or raise."""
    barrier = threading.Barrier(count)
    outcomes: list[Any] = []

    def run() -> None:
        try:
            barrier.wait(timeout=60)
            outcomes.append(act())
        except Exception as error:
            outcomes.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return outcomes


@pytest.mark.django_db(transaction=True)
def test_an_agent_that_twenty_create_at_once_exists_once() -> None:
    slug = unique("same")
    outcomes = at_once(20, lambda: create_agent(slug=slug, name="Same", author=None, system_prompt="x"))
    assert [type(outcome) for outcome in outcomes].count(SlugTaken) == 19
    assert AgentVersion.objects.filter(agent__slug=slug).count() == 1


@pytest.mark.django_db(transaction=True)
def test_twenty_editors_at_once_share_one_draft_and_one_publication() -> None:
    agent = make_agent()
    drafts = at_once(20, lambda: start_draft(agent, author=None))
    assert len(drafts) == 20
    assert {draft.pk for draft in drafts} == {agent.versions.get(published_at=None).pk}
    assert {draft.number for draft in drafts} == {2}
    outcomes = at_once(20, lambda: publish(AgentVersion.objects.get(pk=drafts[0].pk), actor=None))
    assert [type(outcome) for outcome in outcomes].count(Publication) == 1
    assert [type(outcome) for outcome in outcomes].count(NotPublishable) == 19
    assert agent.publications.count() == 2
