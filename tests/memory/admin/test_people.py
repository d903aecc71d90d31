"""The list of people, one person, erasing somebody, and the receipts."""

from __future__ import annotations

import html

import pytest
from django.urls import reverse

from memory.admin import erasing, people
from memory.browsing import person_owner
from memory.models import Conversation, Erasure, Passage, Subject, Turn
from memory.naming import find_person
from tests.factories import make_passage, make_user, unique

pytestmark = pytest.mark.usefixtures("live_db")
PEOPLE = reverse("admin:memory_subject_changelist")


def text_of(response, *, status=200):
    assert response.status_code == status, response.content
    return html.unescape(response.content.decode())


def erase_url(subject):
    return reverse("admin:memory_subject_erase", args=(subject.pk,))


def test_people_are_found_by_name_and_number_and_shown_with_what_there_is(operator, maria, owner, shop, finish):
    finish("Hello there, my friend.", owner=maria.owner, subject=maria.name)
    for search in (maria.name, f"#{maria.pk}", f" #{maria.pk} ", maria.owner):
        text = text_of(operator.get(PEOPLE, {"q": search}))
        assert maria.name in text, search
        assert shop.name in text
    response = operator.get(PEOPLE, {"q": maria.name})
    [found] = response.context["cl"].result_list
    assert (found.glance.memories, found.glance.turns, found.glance.agents) == (1, 1, ["companion"])
    assert found.glance.last_seen_at == Conversation.objects.get(subject=maria).last_turn_at
    for nobody in ("#999999999", "#999999999999999999999999", "#x", unique("nobody")):
        assert operator.get(PEOPLE, {"q": nobody}).context["cl"].result_list == []


def test_a_page_of_people_costs_as_many_queries_as_one_person(operator, shop, django_assert_max_num_queries):
    people_of_shop = [Subject.objects.create(owner=f"owner:{shop.pk}", name=unique("p")) for _ in range(12)]
    for subject in people_of_shop:
        make_passage(person_owner("companion", subject.pk), "Likes tea.")
    with django_assert_max_num_queries(10):
        glances = people.glance_at(people_of_shop)
    assert {glance.memories for glance in glances.values()} == {1}


def test_people_are_called_by_their_names_and_sessions_by_number(shop):
    editor = make_user(role="editor")
    cases = {
        (f"owner:{shop.pk}", "ada"): ("ada", shop.name),
        (f"owner:{shop.pk}", "session/s1"): (None, f"session of {shop.name}"),
        ("owner:999999", "ada"): ("ada", "key owner 999999"),
        ("anonymous:abc", "s1"): (None, "anonymous session"),
        ("anonymous", "s_abc"): (None, "anonymous session"),
        (f"editor:{editor.pk}", "s1"): (None, f"tried by {editor.username}"),
        ("editor:999999", "s1"): (None, "tried by an editor"),
    }
    for (owner, name), (title, whose) in cases.items():
        subject = Subject.objects.create(owner=owner, name=f"{name}{unique('')}")
        found = find_person(subject.pk)
        assert (found.title, found.whose) == (subject.name if title else f"#{subject.pk}", whose), owner
        assert found.is_named is bool(title)
    assert find_person(2**40) is None


def test_one_person_is_shown_agent_by_agent(operator, maria, owner, finish):
    finish("Hello there, my friend.", owner=maria.owner, subject=maria.name, agent="forgetful", session="s1", remember=False)
    response = operator.get(reverse("admin:memory_subject_change", args=(maria.pk,)))
    text = text_of(response)
    assert [(each.agent, each.memories, each.turns) for each in response.context["agents"]] == [("companion", 1, 0), ("forgetful", 0, 1)]
    assert reverse("admin:memory_memoryowner_change", args=(owner.pk,)) in text
    assert "keeps none" in text
    [conversation] = Conversation.objects.filter(subject=maria)
    assert reverse("admin:memory_conversation_change", args=(conversation.pk,)) in text


def test_somebody_without_anything_has_a_page(operator, shop):
    subject = Subject.objects.create(owner=f"owner:{shop.pk}", name=unique("nobody"))
    assert "No agent has talked to this person yet." in text_of(operator.get(reverse("admin:memory_subject_change", args=(subject.pk,))))


def test_nobody_is_erased_by_a_slip(operator, maria, owner):
    assert f"type {maria.name}" in text_of(operator.get(erase_url(maria)))
    for typed in ("", "Maria", maria.name.upper()):
        text = text_of(operator.post(erase_url(maria), {"typed": typed}), status=422)
        assert "Nothing was saved yet" in text
    assert Subject.objects.filter(pk=maria.pk).exists()


def test_erasing_leaves_a_receipt_that_says_how_much_and_not_who(operator, maria, owner, finish):
    turn = finish("My secret is a zeppelin.", "I see.", owner=maria.owner, subject=maria.name)
    response = operator.post(erase_url(maria), {"typed": maria.name})
    receipt = Erasure.objects.order_by("-erased_at").first()
    assert response["Location"] == reverse("admin:memory_erasure_change", args=(receipt.pk,))
    assert f"{maria.name} is erased." in text_of(operator.get(response["Location"]))
    text = text_of(operator.get(response["Location"]))
    assert maria.name not in text
    assert receipt.actor.startswith("admin:user-")
    assert (receipt.counts["memories"], receipt.counts["turns"], receipt.counts["conversations"]) == (1, 1, 1)
    for word in erasing.WHAT.values():
        assert word in text
    assert not Subject.objects.filter(pk=maria.pk).exists()
    assert not Turn.objects.filter(pk=turn).exists()
    assert not Passage.objects.filter(owner=owner).exists()
    assert operator.get(PEOPLE, {"q": maria.name}).context["cl"].result_list == []
    for gone in (erase_url(maria), reverse("admin:memory_memoryowner_change", args=(owner.pk,))):
        assert operator.get(gone).status_code == 404
    listed = text_of(operator.get(reverse("admin:memory_erasure_changelist")))
    assert str(receipt.pk) in listed
    assert maria.name not in listed


def test_a_receipt_says_what_is_not_confirmed_yet(operator, live_db, maria):
    operator.post(erase_url(maria), {"typed": maria.name})
    receipt = Erasure.objects.order_by("-erased_at").first()
    Erasure.objects.filter(pk=receipt.pk).update(counts=receipt.counts | {"reply cache": "pending"})
    assert "waits for reply cache" in text_of(operator.get(reverse("admin:memory_erasure_changelist")))
    assert "not confirmed yet" in text_of(operator.get(reverse("admin:memory_erasure_change", args=(receipt.pk,))))
