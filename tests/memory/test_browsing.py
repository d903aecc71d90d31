"""What is remembered, as people read it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode

import pytest
from django.db import connections, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.browsing import (
    agent_owner,
    list_memories,
    memory_counts,
    owner_for,
    owners_of_subject,
    person_owner,
    shared_owner,
    shared_owners,
)
from memory.features import features_of
from memory.isolation import acting_for
from memory.models import Origin, Passage, Recalled, Speaker, Subject, Turn
from memory.storing import NewPassage, store_alone
from observability.api import run_burst
from observability.errors import BadRequest
from tests.factories import unique

pytestmark = pytest.mark.usefixtures("live_db")
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def new_owner(agent="companion"):
    return person_owner(agent, Subject.objects.create(owner="owner:1", name=unique("person")).pk).pk


@pytest.fixture
def owner():
    return new_owner()


def keep(owner, *texts, at=NOON, **fields):
    """Store notes, a minute after each other; return their ids."""
    notes = [
        NewPassage(
            owner_id=owner,
            origin=Origin.ADDED,
            speaker=Speaker.NOTE,
            said_at=at + timedelta(minutes=number),
            text=text,
            features=features_of(text, said_on=at.date()),
            vectors=(),
            **fields,
        )
        for number, text in enumerate(texts)
    ]
    with transaction.atomic():
        return store_alone(notes, model=None)


def texts(page):
    return [card.text for card in page.items]


def test_the_newest_comes_first_page_by_page(owner):
    keep(owner, *"abcde")
    page = list_memories(owner, limit=2)
    assert texts(page) == ["e", "d"]
    # As it travels in an address, quoted or not.
    travelled = parse_qs(urlencode({"before": page.next}))["before"][0]
    assert texts(list_memories(owner, limit=2, before=travelled)) == ["c", "b"]
    page = list_memories(owner, limit=2, before=page.next.replace("+", " "))
    assert texts(page) == ["c", "b"]
    page = list_memories(owner, limit=2, before=page.next)
    assert (texts(page), page.next) == (["a"], "")


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 5))
def test_pages_hold_every_memory_once_even_those_of_one_moment(minutes, limit):
    owner = new_owner()
    ids = [keep(owner, f"text {number}", at=NOON + timedelta(minutes=minute))[0] for number, minute in enumerate(minutes)]
    found, before = [], None
    while before != "":
        page = list_memories(owner, limit=limit, before=before)
        found, before = found + [card.id for card in page.items], page.next
    assert len(found) == len(ids)
    assert set(found) == set(ids)


@pytest.mark.parametrize(
    "before", ["x", "~", "2026-05-01~1", "2026-05-01T00:00:00+00:00~x", "2026-05-01T00:00:00+00:00~-1", "\0", "~" * 5000]
)
def test_a_cursor_that_no_page_gave_is_refused(owner, before):
    with pytest.raises(BadRequest):
        list_memories(owner, before=before)


def test_searching_takes_words_as_they_are(owner):
    keep(owner, "She likes 100% cotton", "He likes 100 apples", "Ünlü KAHVE")
    assert texts(list_memories(owner, search="LIKES")) == ["He likes 100 apples", "She likes 100% cotton"]
    assert texts(list_memories(owner, search="100%")) == ["She likes 100% cotton"]
    assert texts(list_memories(owner, search="kahve")) == ["Ünlü KAHVE"]
    assert texts(list_memories(owner, search="_")) == []
    assert texts(list_memories(owner, search="\0")) != []


def test_history_is_shown_where_it_is_asked_for(owner):
    old, new = keep(owner, "Likes tea", "Likes coffee")
    Passage.objects.filter(pk=old).update(valid_until=NOON, superseded_by_id=new)
    assert texts(list_memories(owner)) == ["Likes coffee"]
    [_, was] = list_memories(owner, history=True).items
    assert (was.valid_until, was.superseded_by) == (NOON, new)
    assert memory_counts([owner]) == {owner: 1}


def test_a_memory_says_what_it_was_last_good_for(owner, finish):
    memory, unused = keep(owner, "Likes tea", "Likes coffee")
    said = [finish("What do I drink?", remember=False), finish("And in the evening?", remember=False)]
    for number, turn in enumerate(said):
        at = NOON + timedelta(days=number)
        Recalled.objects.create(turn_id=turn, owner_id=owner, passage_id=memory, position=1, score=1.0, recalled_at=at)
    cards = {card.id: card for card in list_memories(owner).items}
    assert (cards[memory].recalled_for, cards[memory].recalled_at) == ("And in the evening?", NOON + timedelta(days=1))
    assert (cards[unused].recalled_for, cards[unused].recalled_at) == ("", None)


def test_a_memory_says_where_it_was_said(owner, finish):
    session = unique("session")
    turn = finish("I like tea", session=session, remember=False)
    keep(owner, "I like tea", turn_id=turn)
    [card] = list_memories(owner).items
    assert (card.turn_id, card.session_id) == (turn, session)
    assert Turn.objects.filter(pk=turn).exists()


def test_nobody_sees_the_memories_of_others(owner):
    other = new_owner()
    keep(owner, "Likes tea")
    keep(other, "Likes coffee")
    assert texts(list_memories(owner)) == ["Likes tea"]
    assert texts(list_memories(other, search="likes")) == ["Likes coffee"]
    assert memory_counts([owner]) == {owner: 1}
    assert memory_counts([]) == {}


def test_acting_ends_with_the_list_in_a_longer_transaction(owner):
    keep(owner, "Likes tea")
    with transaction.atomic():
        list_memories(owner)
        Subject.objects.create(owner="owner:1", name=unique("person"))  # which who acts for an owner may not
        with pytest.raises(ZeroDivisionError), acting_for([owner]):
            raise ZeroDivisionError
        Subject.objects.create(owner="owner:1", name=unique("person"))


def test_owners_are_made_once():
    subject = Subject.objects.create(owner="owner:1", name=unique("person"))
    assert owner_for("companion", subject.pk) is None
    assert owners_of_subject(subject.pk) == []
    person = person_owner("companion", subject.pk)
    assert person_owner("companion", subject.pk) == owner_for("companion", subject.pk) == person
    other = person_owner("advisor", subject.pk)
    assert owners_of_subject(subject.pk) == [other, person]
    agent, collection = unique("agent"), unique("collection")
    assert agent_owner(agent) == agent_owner(agent)
    assert shared_owner(collection) == shared_owner(collection)
    assert shared_owner(collection) in shared_owners()
    assert len({person, other, agent_owner(agent), shared_owner(collection)}) == 4


def test_owners_that_are_made_at_once_are_one():
    name = unique("collection")

    def make(_):
        try:
            return shared_owner(name).pk
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(make, range(8)))) == 1


def test_a_list_can_be_read_from_a_burst(owner):
    keep(owner, "Likes tea")
    assert texts(asyncio.run(run_burst(list_memories, owner))) == ["Likes tea"]
