"""The snapshot of the live version that chat answers with."""

from __future__ import annotations

import asyncio

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agents.models import Agent, Provider
from agents.versions import live
from agents.versions.content import write_fallbacks
from agents.versions.drafts import draft_of
from agents.versions.live import FRESH_FOR_S, AgentNotFound, Answering, LiveVersions, list_live, load_draft, load_live
from agents.versions.publishing import publish, roll_back
from tests.factories import make_agent, make_provider, make_version
from tests.waiting import eventually


def test_a_publication_and_a_roll_back_are_seen_within_their_time(live_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(system_prompt="first")
    first = agent.live_version
    assert first is not None
    versions = LiveVersions()

    with asyncio.Runner() as runner:

        def number() -> int:
            return runner.run(versions.find(agent.slug)).number

        assert number() == 1
        make_version(agent, system_prompt="second")
        eventually(lambda: number() == 2, what="the new version", timeout_s=10)
        roll_back(agent, to=first, actor=None)
        eventually(lambda: number() == 1, what="the earlier version", timeout_s=10)
        Agent.objects.filter(pk=agent.pk).update(is_active=False)
        with monkeypatch.context() as patience:
            patience.setattr(live, "FRESH_FOR_S", 60.0)  # however long a busy machine holds it up
            assert number() == 1  # still fresh
        with pytest.raises(AgentNotFound):
            eventually(lambda: number() != 1, what="the agent gone", timeout_s=10)


def test_absence_is_remembered_as_long_as_presence_so_that_time_tells_no_difference(live_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    switched_off, unpublished = make_agent(is_active=False), make_agent(published=False)
    slugs = ["nobody-of-that-name", switched_off.slug, unpublished.slug]
    looks: list[str] = []
    genuine = live.load_live
    monkeypatch.setattr(live, "load_live", lambda slug: looks.append(slug) or genuine(slug))
    now = 1000.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    versions = LiveVersions()

    with asyncio.Runner() as runner:

        def is_absent(slug: str) -> bool:
            try:
                runner.run(versions.find(slug))
            except AgentNotFound:
                return True
            return False

        for _ in range(3):
            assert all(is_absent(slug) for slug in slugs)
        assert looks == slugs
        Agent.objects.filter(pk=switched_off.pk).update(is_active=True)
        draft = draft_of(unpublished)
        assert draft is not None
        publish(draft, actor=None)
        now += FRESH_FOR_S
        assert [is_absent(slug) for slug in slugs] == [True, False, False]
        assert [is_absent(slug) for slug in slugs] == [True, False, False]
        assert looks == 2 * slugs


def test_asking_for_many_absent_agents_takes_no_more_memory_than_the_limit(live_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(slug: str) -> Answering:
        raise AgentNotFound

    monkeypatch.setattr(live, "load_live", absent)
    monkeypatch.setattr(live, "_MOST_AGENTS", 10)
    versions = LiveVersions()

    async def run() -> None:
        for number in range(35):
            with pytest.raises(AgentNotFound):
                await versions.find(f"absent-{number}")

    asyncio.run(run())
    assert len(versions._absences) <= 10


def test_a_hundred_askers_at_once_make_one_look(live_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent()
    looks: list[str] = []
    genuine = live.load_live
    monkeypatch.setattr(live, "load_live", lambda slug: looks.append(slug) or genuine(slug))
    monkeypatch.setattr(live, "FRESH_FOR_S", 60.0)  # even where a busy machine holds this up

    async def run() -> None:
        versions = LiveVersions()
        found = await asyncio.gather(*(versions.find(agent.slug) for _ in range(100)))
        assert all(one is found[0] for one in found)
        assert await versions.find(agent.slug) is found[0]

    asyncio.run(run())
    assert looks == [agent.slug]


def test_one_asker_who_leaves_does_not_disturb_the_others(live_db: None) -> None:
    agent = make_agent()

    async def run() -> None:
        versions = LiveVersions()
        tasks = [asyncio.create_task(versions.find(agent.slug)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1] == results[2]

    asyncio.run(run())


@pytest.mark.parametrize("slug", ["nobody-of-that-name", "", "\x00", "NOBODY", "a" * 5000, "../admin", "a b", "é", "\ud800", "a\n"])
def test_no_such_agent(live_db: None, slug: str) -> None:
    with pytest.raises(AgentNotFound):
        asyncio.run(LiveVersions().find(slug))


def test_unpublished_and_inactive_agents_are_absent(db: None) -> None:
    for agent in (make_agent(published=False), make_agent(is_active=False)):
        with pytest.raises(AgentNotFound):
            load_live(agent.slug)
        assert agent.slug not in [found.slug for found in list_live(lambda agent: True)]


def test_only_agents_that_the_caller_may_use_are_listed(db: None) -> None:
    public, private = make_agent(), make_agent(access="key")
    listed = [found.slug for found in list_live(lambda agent: agent.access == "public")]
    assert public.slug in listed
    assert private.slug not in listed
    assert load_live(private.slug).access == "key"


def test_a_longer_list_costs_no_more_queries(db: None) -> None:
    def listed() -> tuple[int, int]:
        with CaptureQueriesContext(connection) as queries:
            return len(list_live(lambda agent: True)), len(queries)

    def make() -> None:
        agent = make_agent(published=False)
        draft = draft_of(agent)
        assert draft is not None
        write_fallbacks(draft, fallbacks=[(make_provider().pk, "one"), (make_provider().pk, "two")])
        publish(draft, actor=None)

    make()
    few, queries = listed()
    for _ in range(5):
        make()
    assert listed() == (few + 5, queries)


def test_the_draft_is_what_editors_try(db: None) -> None:
    agent = make_agent(system_prompt="live")
    make_version(agent, published=False, system_prompt="draft")
    assert load_live(agent.slug).system_prompt == "live"
    assert (load_draft(agent.slug).system_prompt, load_draft(agent.slug).number) == ("draft", 2)


def test_without_a_draft_editors_try_what_is_live_and_not_what_is_newest(db: None) -> None:
    agent = make_agent(system_prompt="first")
    first = agent.live_version
    assert first is not None
    make_version(agent, published=True, system_prompt="second")
    agent.refresh_from_db()
    roll_back(agent, to=first, actor=None)
    assert (load_draft(agent.slug).system_prompt, load_draft(agent.slug).number) == ("first", 1)


def test_models_default_and_the_demo_is_never_a_fallback(db: None) -> None:
    Provider.objects.update(is_default=False)
    default = make_provider(is_default=True, default_model="default-model")
    demo = make_provider(is_demo=True, default_model="demo-model")
    other = make_provider(default_model="other-model")
    agent = make_agent(published=False, provider=None, model="")
    draft = draft_of(agent)
    assert draft is not None
    write_fallbacks(draft, fallbacks=[(demo.pk, ""), (other.pk, ""), (None, "named-model")])
    publish(draft, actor=None)
    found = load_live(agent.slug)
    assert [(choice.provider.slug, choice.model) for choice in found.choices] == [
        (default.slug, "default-model"),
        (other.slug, "other-model"),
        (default.slug, "named-model"),
    ]
    assert not found.is_demo
    assert load_live(make_agent(provider=demo).slug).is_demo


def test_background_work_has_the_model_that_is_named_for_it_or_the_one_that_answers(db: None) -> None:
    own, other = make_provider(default_model="large"), make_provider(default_model="tiny")
    expected = [
        ({}, (own.slug, "large")),
        ({"summary_model": "small"}, (own.slug, "small")),
        ({"summary_provider": other}, (other.slug, "tiny")),
        ({"summary_provider": other, "summary_model": "small"}, (other.slug, "small")),
    ]
    for fields, (provider, model) in expected:
        [choice] = load_live(make_agent(provider=own, **fields).slug).background
        assert (choice.provider.slug, choice.model) == (provider, model)


def test_what_chat_needs_of_memory_is_in_the_snapshot(db: None) -> None:
    found = load_live(make_agent(memory_threshold=7.5, knowledge=["handbook", "prices"], summaries=True, facts_by_model=True).slug)
    assert (found.memory_threshold, found.knowledge, found.summaries, found.facts_by_model) == (7.5, ("handbook", "prices"), True, True)


@pytest.mark.parametrize(("conversation_days", "seconds"), [(0, 7 * 86_400), (1, 86_400), (30, 7 * 86_400)])
def test_an_answer_is_kept_no_longer_than_its_conversation(db: None, conversation_days: int, seconds: int) -> None:
    agent = make_agent(reply_cache_s=7 * 86_400, conversation_days=conversation_days)
    assert load_live(agent.slug).reply_cache_s == seconds


def test_without_any_provider_there_is_no_choice(db: None) -> None:
    agent = make_agent(provider=make_provider())
    Provider.objects.update(is_default=False)
    version = agent.live_version
    assert version is not None
    version.provider = None
    assert live.snapshot_of(agent, version).choices == ()
    assert live.snapshot_of(agent, version).background == ()
