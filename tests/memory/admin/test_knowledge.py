"""Shared knowledge and what agents know for everybody: written by editors, read by operators."""

from __future__ import annotations

import html

import pytest
from django.urls import reverse

from memory.browsing import agent_owner, list_memories, shared_owner
from memory.models import MemoryOwner
from observability.api import count_tokens
from tests.factories import make_agent, make_passage, unique

pytestmark = pytest.mark.usefixtures("live_db", "embedder")
COLLECTIONS = reverse("admin:memory_memoryowner_changelist")


def url(page, owner, *args):
    return reverse(f"admin:memory_memoryowner_{page}", args=(owner.pk, *args))


def text_of(response, *, status=200):
    assert response.status_code == status, response.content
    return html.unescape(response.content.decode())


@pytest.fixture
def prices():
    return shared_owner(unique("prices"))


def test_a_collection_is_made_and_filled(editor):
    name = unique("hours")
    response = editor.post(reverse("admin:memory_memoryowner_add"), {"name": name})
    owner = MemoryOwner.objects.get(collection=name)
    assert response["Location"] == url("change", owner)
    assert "No texts yet" in text_of(editor.get(url("change", owner)))
    assert "Remembered. It is recalled" in text_of(editor.post(url("add_memory", owner), {"text": "We open at nine."}, follow=True))
    [card] = list_memories(owner.pk).items
    assert (card.text, card.speaker, card.origin) == ("We open at nine.", "note", "added")
    assert name in text_of(editor.get(COLLECTIONS, {"q": name}))


@pytest.mark.parametrize("name", ["", "Upper", "two words", "-begins", "ends-", "a--b", "ü", "x" * 64])
def test_names_that_no_agent_could_use_are_refused(name, editor):
    response = editor.post(reverse("admin:memory_memoryowner_add"), {"name": name})
    assert "Nothing was saved yet" in text_of(response, status=422)
    assert not MemoryOwner.objects.filter(collection=name).exclude(collection="").exists()


def test_a_name_is_given_once(editor, prices):
    assert "There is a collection of this name" in text_of(
        editor.post(reverse("admin:memory_memoryowner_add"), {"name": prices.collection}), status=422
    )


def test_a_long_text_becomes_passages_that_are_found_one_by_one(editor, prices):
    sentences = [f"Article number {number} of our catalogue costs {number * 3} euros and comes in blue and green." for number in range(60)]
    text = text_of(editor.post(url("add_memory", prices), {"text": "\n".join(sentences)}, follow=True))
    cards = list_memories(prices.pk, limit=200).items
    assert f"Remembered, in {len(cards)} passages." in text
    assert len(cards) > 4
    assert all(count_tokens(card.text, model="") <= 200 for card in cards)
    assert " ".join(card.text for card in reversed(cards)).split() == " ".join(sentences).split()
    again = text_of(editor.post(url("add_memory", prices), {"text": "\n".join(sentences)}, follow=True))
    assert f"Remembered, in {len(cards)} passages." in again
    assert len(list_memories(prices.pk, limit=200).items) == len(cards), "nothing is added twice"


def test_a_text_with_long_lines_of_dashes_is_kept_too(editor, prices):
    text = f"Tea costs 2 euros.\n{'-' * 9000}\nCoffee costs 3 euros."
    assert "Remembered" in text_of(editor.post(url("add_memory", prices), {"text": text}, follow=True))
    kept = " ".join(card.text for card in list_memories(prices.pk).items)
    assert "Tea costs 2 euros." in kept
    assert "Coffee costs 3 euros." in kept


def test_texts_are_searched_corrected_and_forgotten(editor, prices):
    id = make_passage(prices, "Tea costs 2 euros.")
    make_passage(prices, "Coffee costs 3 euros.")
    assert "Coffee" not in text_of(editor.get(url("change", prices), {"q": "tea"}))
    editor.post(url("correct", prices, id), {"text": "Tea costs 4 euros."})
    assert {card.text for card in list_memories(prices.pk).items} == {"Tea costs 4 euros.", "Coffee costs 3 euros."}
    editor.post(url("forget", prices, list_memories(prices.pk, search="coffee").items[0].id))
    assert [card.text for card in list_memories(prices.pk).items] == ["Tea costs 4 euros."]


def test_a_collection_is_deleted_once_that_is_confirmed(editor, prices):
    make_passage(prices, "Tea costs 2 euros.")
    assert "1 text" in text_of(editor.get(url("delete_collection", prices)))
    assert "is deleted, with 1 text." in text_of(editor.post(url("delete_collection", prices), follow=True))
    assert not MemoryOwner.objects.filter(pk=prices.pk).exists()


def test_operators_read_and_change_nothing(operator, prices):
    id = make_passage(prices, "Tea costs 2 euros.")
    assert "Tea costs" in text_of(operator.get(url("change", prices)))
    assert "Add a text" not in text_of(operator.get(url("change", prices)))
    for page, args in (("add_memory", ()), ("correct", (id,)), ("forget", (id,)), ("pin", (id,)), ("delete_collection", ())):
        assert operator.post(url(page, prices, *args), {"text": "Other.", "pinned": "1"}).status_code == 403
    assert operator.post(reverse("admin:memory_memoryowner_add"), {"name": unique("other")}).status_code == 403
    assert [(card.text, card.is_pinned) for card in list_memories(prices.pk).items] == [("Tea costs 2 euros.", False)]


def test_only_collections_are_deleted_so(editor):
    assert editor.post(url("delete_collection", agent_owner(unique("agent")))).status_code == 403


def test_an_agents_page_shows_what_it_knows_and_begins_its_own(editor, prices):
    missing = unique("missing")
    agent = make_agent(knowledge=[prices.collection, missing], memory_enabled=True)
    make_passage(prices, "Tea costs 2 euros.")
    address = reverse("admin:agents_agent_memory", args=(agent.pk,))
    response = editor.get(address)
    assert [(each.collection, each.texts) for each in response.context["knowledge"]] == [("", 0), (prices.collection, 1), (missing, 0)]
    assert url("change", prices) in text_of(response)
    assert "no such collection" in text_of(response)
    begun = editor.post(reverse("admin:agents_agent_begin_own", args=(agent.pk,)))
    own = MemoryOwner.objects.get(kind="agent", agent=agent.slug)
    assert begun["Location"] == url("add_memory", own)
    editor.post(begun["Location"], {"text": "Never give medical advice."})
    assert "Never give medical advice." in text_of(editor.get(url("change", own)))
    assert editor.get(address).context["knowledge"][0].texts == 1
    assert reverse("admin:agents_agent_named", args=(agent.slug, "memory")) in text_of(editor.get(url("change", own)))


def test_only_editors_begin_what_an_agent_knows(operator):
    agent = make_agent()
    assert operator.post(reverse("admin:agents_agent_begin_own", args=(agent.pk,))).status_code == 403
    assert not MemoryOwner.objects.filter(agent=agent.slug).exists()


def test_pages_of_an_agent_are_reached_by_its_name(editor):
    agent = make_agent()
    for page in ("memory", "recall"):
        response = editor.get(reverse("admin:agents_agent_named", args=(agent.slug, page)) + "?person=7")
        assert response["Location"] == reverse(f"admin:agents_agent_{page}", args=(agent.pk,)) + "?person=7"
    for gone in ((unique("gone"), "memory"), (agent.slug, "delete")):
        assert editor.get(reverse("admin:agents_agent_named", args=gone))["Location"] == reverse("admin:agents_agent_changelist")
