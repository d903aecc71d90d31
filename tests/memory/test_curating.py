"""What people do to memories by hand: add, correct, pin and forget."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from memory.browsing import agent_owner, list_memories, memory_counts, person_owner
from memory.curating import MAX_CHARS, MemoryIsHistory, MemoryNotFound, add, correct, forget, pin
from memory.models import MemoryOwner, Passage, Posting, Sentence, Subject, Turn
from memory.writing import remember_due_turns
from observability.errors import BadRequest, Unavailable
from observability.outbound import close_transports
from tests.factories import forget_vectors, unique
from tests.memory.embedding_server import EmbeddingServer

pytestmark = pytest.mark.usefixtures("live_db", "embedder")


@pytest.fixture
def owner():
    """The id of a person's memories that nothing is in."""
    subject = Subject.objects.create(owner="owner:1", name=unique("person"))
    return person_owner("companion", subject.pk).pk


def wait_for(function, *args, **kwargs):
    async def run():
        try:
            return await function(*args, **kwargs)
        finally:
            await close_transports()

    return asyncio.run(run())


def texts(owner, **kwargs):
    return [card.text for card in list_memories(owner, **kwargs).items]


def test_an_added_memory_is_listed_and_found(owner):
    id = wait_for(add, owner, text=" Always greet Ada in Danish. ", author="maria")
    [card] = list_memories(owner).items
    assert (card.id, card.text, card.origin, card.speaker, card.author) == (id, "Always greet Ada in Danish.", "added", "note", "maria")
    assert Sentence.objects.filter(owner=owner).count() == 1
    assert Posting.objects.filter(owner=owner, term="danish").exists()
    assert memory_counts([owner]) == {owner: 1}


def test_the_same_text_is_added_once(owner):
    first = wait_for(add, owner, text="Likes trains", author="maria")
    assert wait_for(add, owner, text="Likes trains", author="otto") == first
    assert texts(owner) == ["Likes trains"]


@pytest.mark.parametrize("refused", ["Danish", "e"])
def test_a_text_that_is_refused_is_kept_and_a_server_that_refuses_everything_is_told(owner, settings, refused):
    server = EmbeddingServer(dimensions=8)
    settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL, settings.EMBEDDER_URL = server.url, "hashing", ""
    settings.OUTBOUND_ALLOWED_HOSTS = [server.address]
    server.refused = refused
    forget_vectors()
    try:
        if refused == "Danish":
            wait_for(add, owner, text="Always greet Ada in Danish.", author="maria")
        else:  # as with a key that some vendors call a bad request
            with pytest.raises(Unavailable):
                wait_for(add, owner, text="Always greet Ada in Danish.", author="maria")
        assert texts(owner) == ["Always greet Ada in Danish."] * (refused == "Danish")
    finally:
        server.stop()
        forget_vectors()


def test_what_cannot_be_kept_is_refused(owner):
    for text in ("", " \n", "!?", "x" * (MAX_CHARS + 1)):
        with pytest.raises(BadRequest):
            wait_for(add, owner, text=text, author="maria")
    with pytest.raises(MemoryNotFound):
        wait_for(add, 2**40, text="Likes trains", author="maria")
    assert texts(owner) == []


def test_nothing_is_stored_while_the_embedder_is_down(owner, settings):
    settings.EMBEDDER_URL = "http://127.0.0.1:9/v1"
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1:9"]
    with pytest.raises(Unavailable, match="Nothing was stored"):
        wait_for(add, owner, text="Likes trains", author="maria")
    settings.EMBEDDER_URL = ""
    with pytest.raises(Unavailable, match="Nothing was stored"):
        wait_for(add, owner, text="Likes trains", author="maria")
    assert texts(owner) == []


def test_a_person_who_adds_a_fact_in_their_own_words_contradicts_the_older_one(owner):
    first = wait_for(add, owner, text="I live in Berlin.", author="ada")
    second = wait_for(add, owner, text="I live in Hamburg.", author="ada")
    assert texts(owner) == ["I live in Hamburg."]
    _, old = list_memories(owner, history=True).items
    assert (old.id, old.superseded_by, old.attribute, old.speaker) == (first, second, "home", "user")
    assert old.valid_until is not None


def test_the_words_of_an_editor_are_no_fact_of_an_agent():
    shared = agent_owner(unique("agent")).pk
    wait_for(add, shared, text="I live in Berlin.", author="maria")
    wait_for(add, shared, text="I live in Hamburg.", author="maria")
    assert len(texts(shared)) == 2


def test_a_correction_takes_the_place_of_what_it_corrects(owner):
    old = wait_for(add, owner, text="Her dog is called Rex", author="maria", attribute="Pet")
    pin(owner, old, pinned=True)
    new = wait_for(correct, owner, old, text="Her dog is called Max", author="otto")
    [card] = list_memories(owner).items
    assert (card.id, card.text, card.attribute, card.is_pinned, card.author) == (new, "Her dog is called Max", "pet", True, "otto")
    [_, was] = list_memories(owner, history=True).items
    assert (was.superseded_by, was.valid_until) == (new, card.said_at)
    assert wait_for(correct, owner, old, text="Her dog is called Max", author="otto") == new
    with pytest.raises(MemoryIsHistory):
        wait_for(correct, owner, old, text="Her dog is called Bello", author="otto")
    assert wait_for(correct, owner, new, text="Her dog is called Max", author="otto") == new
    assert len(texts(owner, history=True)) == 2


def test_pins_are_set_and_taken(owner):
    id = wait_for(add, owner, text="Likes trains", author="maria")
    for pinned in (True, True, False):
        pin(owner, id, pinned=pinned)
        assert list_memories(owner).items[0].is_pinned is pinned


def test_forgetting_takes_what_it_superseded_along(owner):
    first = wait_for(add, owner, text="Likes trains", author="maria")
    second = wait_for(correct, owner, first, text="Likes planes", author="maria")
    third = wait_for(correct, owner, second, text="Likes boats", author="maria")
    other = wait_for(add, owner, text="Likes apples", author="maria")
    assert forget(owner, third) == 3
    assert texts(owner, history=True) == ["Likes apples"]
    assert not Posting.objects.filter(owner=owner, term__in=["train", "plane", "boat"]).exists()
    assert Sentence.objects.filter(owner=owner).count() == 1
    assert forget(owner, other) == 1


@pytest.fixture
def told(embedder, finish):
    """Say something in a turn that is remembered; return the owner's id and the passages, the person's words first, then facts."""

    def told(message, **fields):
        Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
        turn = finish(message, "Sure!", **fields)
        wait_for(remember_due_turns, embedder)
        passages = list(Passage.objects.filter(turn=turn, speaker="user").order_by("-origin", "-seq"))
        return passages[0].owner_id, *(passage.pk for passage in passages)

    return told


def test_correcting_a_fact_corrects_what_it_was_read_from_where_that_says_nothing_else(told):
    person = unique("person")
    told("I live in Berlin.", subject=person)
    owner, _, fact = told("Hello! I live in Berlin.", subject=person)
    wait_for(correct, owner, fact, text="I live in Hamburg.", author="maria")
    assert texts(owner) == ["I live in Hamburg."]
    assert len(texts(owner, history=True)) == 5
    _, more, _ = told("I live in Ulm. It is near the Danube.", subject=person)
    assert texts(owner) == ["I live in Ulm.", "I live in Ulm. It is near the Danube."]
    [card] = list_memories(owner, search="DANUBE").items
    new = wait_for(correct, owner, more, text="I live in Ulm on the Danube.", author="maria")
    assert [(card.id, card.attribute) for card in list_memories(owner).items] == [(new, "home")]
    assert (card.id, card.attribute, card.session_id != "") == (more, "", True)


def test_correcting_words_supersedes_the_facts_that_were_read_from_them(told):
    owner, words, fact = told("I like apples")
    new = wait_for(correct, owner, words, text="Owns an orchard", author="maria")
    assert [(card.id, card.superseded_by) for card in list_memories(owner, history=True).items] == [(new, None), (fact, new), (words, new)]


def test_forgetting_a_fact_takes_the_words_along_and_whatever_else_was_read_from_them(told):
    person = unique("person")
    owner, *_ = told("I live in Berlin.", subject=person)
    told("I planted two trees.", subject=person)
    *_, home = told("My name is Grete and I live in Ulm.", subject=person)
    assert forget(owner, home) == 5
    assert texts(owner, history=True) == ["I planted two trees."]
    assert MemoryOwner.objects.get(pk=owner).user_name == ""


def test_forgetting_in_the_middle_keeps_the_windows_of_the_rest_right(told):
    session = unique("session")
    owner, *_ = told("I planted two trees.", session=session)
    _, middle = told("The trees grew green apples.", session=session)
    told("We cooked the apples together.", session=session)
    forget(owner, middle)
    lengths = dict(Passage.objects.filter(owner=owner).values_list("seq", "length"))
    for seq, window in Passage.objects.filter(owner=owner).values_list("seq", "window_length"):
        assert window == sum(lengths.get(seq + step, 0) for step in range(-2, 3))


def test_what_is_forgotten_is_not_remembered_again(told, embedder):
    owner, words, _ = told("I live in Berlin.")
    forget(owner, words)
    wait_for(remember_due_turns, embedder)
    assert texts(owner, history=True) == []


def test_nobody_touches_the_memories_of_others(owner):
    stranger = person_owner("companion", Subject.objects.create(owner="owner:2", name=unique("person")).pk).pk
    id = wait_for(add, owner, text="Likes trains", author="maria")
    with pytest.raises(MemoryNotFound):
        wait_for(correct, stranger, id, text="Likes planes", author="eve")
    with pytest.raises(MemoryNotFound):
        pin(stranger, id, pinned=True)
    with pytest.raises(MemoryNotFound):
        forget(stranger, id)
    assert texts(owner) == ["Likes trains"]
    assert texts(stranger) == []


def test_a_forgotten_name_is_not_known_any_more(owner):
    id = wait_for(add, owner, text="My name is Ada Lovelace.", author="ada")
    assert MemoryOwner.objects.get(pk=owner).user_name == "Ada"
    new = wait_for(correct, owner, id, text="My name is Grete.", author="ada")
    assert MemoryOwner.objects.get(pk=owner).user_name == "Grete"
    forget(owner, new)
    assert MemoryOwner.objects.get(pk=owner).user_name == ""
    assert not Passage.objects.filter(owner=owner).exists()
