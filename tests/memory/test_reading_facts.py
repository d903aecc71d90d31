"""Facts that a model reads: of marked turns, once, whatever fails or dies in between."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from memory.curating import forget
from memory.facts.reading import keep_reading_facts, read_due_facts, store_read_facts, take_marked_turns
from memory.models import EmbeddingSpace, Passage, Sentence, Turn
from memory.writing import remember_due_turns
from observability.outbound import close_transports
from tests.factories import unique

LONG_AGO = timedelta(minutes=5)


@pytest.fixture
def told(live_db, embedder, finish):
    """Store turns of one conversation that are remembered and marked, some minutes old; return their ids."""
    Turn.objects.exclude(facts_due_at=None).update(facts_due_at=None)
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))

    def told(*messages, agent="companion", ago=LONG_AGO, session="", **fields):
        session, began = session or unique("session"), datetime.now(UTC) - ago
        turns = [
            finish(message, "I see.", session=session, agent=agent, read_facts=True, created_at=began + timedelta(seconds=number), **fields)
            for number, message in enumerate(messages)
        ]
        run(remember_due_turns(embedder))
        return turns

    return told


def run(*coroutines):
    async def all_of_them():
        try:
            return await asyncio.gather(*coroutines)
        finally:
            await close_transports()

    return asyncio.run(all_of_them())


def reader(*facts, seen=None):
    """A model that reads `facts` of any turns, and notes what it was asked."""

    async def read(agent, turns):
        if seen is not None:
            seen.append((agent, [turn.message for turn in turns]))
        return list(facts)

    return read


def facts(*turns):
    return list(Passage.objects.filter(turn__in=turns, origin="model").order_by("-seq"))


def marks(*turns):
    return Turn.objects.filter(pk__in=turns).exclude(facts_due_at=None).count()


def test_marked_turns_of_a_conversation_are_read_together(told):
    seen = []
    turns = told("Ich wohne in Ulm.", "Meine Schwester heisst Ida.")
    read = reader((0, "home", "Ich wohne in Ulm."), (1, "family:sister", "Meine Schwester heisst Ida."), seen=seen)
    assert run(read_due_facts(read)) == [2]
    assert seen == [("companion", ["Ich wohne in Ulm.", "Meine Schwester heisst Ida."])]
    home, sister = facts(*turns)
    assert (home.attribute, home.text, home.turn_id, home.speaker) == ("home", "Ich wohne in Ulm.", turns[0], "user")
    assert (sister.turn_id, sister.source.turn_id) == (turns[1], turns[1])
    assert Sentence.objects.filter(owner=home.owner_id, seq=home.seq).exists()
    assert marks(*turns) == 0
    assert run(read_due_facts(read)) == [0]


def test_turns_without_the_mark_are_not_read(told, finish, embedder):
    finish("Ich wohne in Ulm.")
    finish("Ich wohne in Rom.", remember=False, read_facts=True)
    run(remember_due_turns(embedder))
    assert run(read_due_facts(reader())) == [0]


def test_a_conversation_that_goes_on_is_waited_for(told):
    session = unique("session")
    first = told("Ich wohne in Ulm.", session=session)
    late = told("Und du?", session=session, ago=timedelta(seconds=5))
    assert run(read_due_facts(reader())) == [0]
    Turn.objects.filter(pk__in=late).update(facts_due_at=datetime.now(UTC))
    assert run(read_due_facts(reader())) == [2]
    assert marks(*first, *late) == 0


def test_an_agent_that_wants_none_read_any_more_ends_the_waiting(told):
    async def none_wanted(agent, turns):
        return None

    turns = told("Ich wohne in Ulm.")
    run(read_due_facts(none_wanted))
    assert (marks(*turns), facts(*turns)) == (0, [])


def test_a_model_that_fails_is_asked_again_later_and_given_up_after_a_day(told):
    async def fails(agent, turns):
        raise RuntimeError("away")

    turns = told("Ich wohne in Ulm.")
    run(read_due_facts(fails))
    due_at = Turn.objects.get(pk=turns[0]).facts_due_at
    assert timedelta(minutes=4) < due_at - datetime.now(UTC) < timedelta(minutes=6)
    assert run(read_due_facts(fails)) == [0]
    Turn.objects.filter(pk__in=turns).update(facts_due_at=datetime.now(UTC), created_at=datetime.now(UTC) - timedelta(days=2))
    run(read_due_facts(fails))
    assert marks(*turns) == 0


def test_a_worker_that_dies_leaves_the_turns_to_another_and_whoever_is_late_stores_nothing(told):
    turns = told("Ich wohne in Ulm.")
    with transaction.atomic():
        taken = take_marked_turns()
    assert [turn.id for turn in taken] == turns
    assert run(read_due_facts(reader((0, "home", "Ich wohne in Ulm.")))) == [0]
    Turn.objects.filter(pk__in=turns).update(facts_due_at=datetime.now(UTC) - timedelta(seconds=1))
    assert run(read_due_facts(reader((0, "home", "Ich wohne in Ulm.")))) == [1]
    with transaction.atomic():
        assert store_read_facts(taken, [], model=None) == 0
    assert len(facts(*turns)) == 1


def test_what_somebody_forgot_meanwhile_does_not_come_back(told):
    turns = told("Ich wohne in Ulm.")
    source = Passage.objects.get(turn=turns[0], speaker="user")
    forget(source.owner_id, source.pk)
    run(read_due_facts(reader((0, "home", "Ich wohne in Ulm."))))
    assert (marks(*turns), facts(*turns)) == (0, [])


def test_what_rules_read_too_is_stored_once_and_supersedes_alike(told):
    person = unique("person")
    first = told("Ich wohne in Ulm.", subject=person)
    run(read_due_facts(reader((0, "home", "Ich wohne in Ulm."))))
    second = told("I live in Rome.", subject=person)
    run(read_due_facts(reader((0, "home", "I live in Rome, Italy."))))
    [german] = facts(*first)
    rule = Passage.objects.get(turn=second[0], origin="fact")
    assert facts(*second) == []
    assert (german.superseded_by_id, german.valid_until) == (rule.pk, rule.said_at)


def test_an_embedder_that_is_down_loses_nothing(told, settings):
    turns = told("Ich wohne in Ulm.")
    model, settings.EMBEDDER_URL = settings.EMBEDDER_URL, "http://127.0.0.1:9/v1"
    settings.OUTBOUND_ALLOWED_HOSTS = [*settings.OUTBOUND_ALLOWED_HOSTS, "127.0.0.1:9"]
    read = reader((0, "home", "Ich wohne weit weg in Ulm."))
    run(read_due_facts(read))
    assert (marks(*turns), facts(*turns)) == (1, [])
    settings.EMBEDDER_URL = model
    Turn.objects.filter(pk__in=turns).update(facts_due_at=datetime.now(UTC))
    run(read_due_facts(read))
    assert (marks(*turns), len(facts(*turns))) == (0, 1)
    assert EmbeddingSpace.objects.filter(is_active=True).count() == 1


def test_the_worker_stops_at_once_and_leaves_what_it_was_at(told):
    turns = told("Ich wohne in Ulm.")

    async def work():
        stopping, asked = asyncio.Event(), asyncio.Event()

        async def never(agent, turns):
            asked.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(keep_reading_facts(stopping, never))
        await asyncio.wait_for(asked.wait(), 60)
        stopping.set()
        await asyncio.wait_for(task, 60)

    run(work())
    assert marks(*turns) == 1
    assert run(read_due_facts(reader((0, "home", "Ich wohne in Ulm.")))) == [1]
