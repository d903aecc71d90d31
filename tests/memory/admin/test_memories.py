"""The list of a person's memories, and what can be done to each."""

from __future__ import annotations

import html
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from memory.browsing import list_memories, memory_counts, person_owner, shared_owner
from memory.curating import MAX_CHARS
from memory.models import Subject
from tests.factories import make_passage, unique

pytestmark = pytest.mark.usefixtures("live_db", "embedder")


def url(page, owner, *args):
    return reverse(f"admin:memory_memoryowner_{page}", args=(owner.pk, *args))


def read(client, address, *, status=200):
    response = client.get(address)
    assert response.status_code == status, response.content
    return html.unescape(response.content.decode())


def only(owner):
    [card] = list_memories(owner.pk).items
    return card


def test_the_list_says_what_is_remembered_and_how_it_came_there(operator, owner):
    text = read(operator, url("change", owner))
    assert "Maria lives in Lisbon." in text
    assert "written by hand" in text
    assert "by anna" in text
    assert "Not recalled yet." in text


def test_what_was_said_leads_to_its_place_in_the_conversation(operator, maria, finish, remember):
    turn = finish("My dog is called Biscuit.", "A good name.", owner=maria.owner, subject=maria.name, session=unique("session"))
    remember()
    text = read(operator, url("change", person_owner("companion", maria.pk)))
    assert "fact: pet" in text
    assert text.count("My dog is called Biscuit.</p>") == 1, "what a fact says word by word is not shown a second time"
    [place] = set(re.findall(r'href="(/admin/memory/conversation/\d+/change/#turn-1)"', text))
    assert f"/admin/memory/turn/{turn}/change/" in read(operator, place)


def test_a_search_finds_what_contains_it_and_says_when_nothing_does(operator, owner):
    make_passage(owner, "Maria likes 100% juice.")
    text = read(operator, f"{url('change', owner)}?q=100%25")
    assert "juice" in text
    assert "Lisbon" not in text
    assert "Nothing matches" in read(operator, f"{url('change', owner)}?q=zeppelin")
    assert "Nothing matches" in read(operator, f"{url('change', owner)}?kind=facts")
    assert "Lisbon" in read(operator, f"{url('change', owner)}?kind=notes")
    assert "Lisbon" in read(operator, f"{url('change', owner)}?kind=nonsense")


def test_the_list_has_pages(operator, owner):
    for number in range(35):
        make_passage(owner, f"Note number {number}.")
    first = read(operator, url("change", owner))
    assert "Note number 34." in first
    assert "Lisbon" not in first
    [older] = re.findall(r'href="(\?before=[^"]+)">Older', first)
    second = read(operator, url("change", owner) + older)
    assert "Lisbon" in second
    assert "Older</a>" not in second
    assert operator.get(url("change", owner) + "?before=nonsense").status_code == 302


def test_a_memory_is_added_and_recalled_from_then_on(operator, maria):
    owner = person_owner("companion", maria.pk)
    assert "remembers nothing of" in read(operator, url("change", owner))
    response = operator.post(url("add_memory", owner), {"text": "Maria plays the cello."})
    assert response["Location"] == url("change", owner)
    assert only(owner).text == "Maria plays the cello."
    assert only(owner).author == User.objects.get(pk=operator.session["_auth_user_id"]).username


@pytest.mark.parametrize("typed", ["", "!?", "x" * (MAX_CHARS + 1)])
def test_what_cannot_be_kept_is_refused_in_words_and_what_was_typed_stays(typed, operator, owner):
    for address in (url("add_memory", owner), url("correct", owner, only(owner).id)):
        response = operator.post(address, {"text": typed})
        assert response.status_code == 422
        assert "Nothing was saved yet" in response.content.decode()
        assert typed in html.unescape(response.content.decode())
    assert only(owner).text == "Maria lives in Lisbon."


def test_without_an_embedder_nothing_is_stored_and_what_was_typed_stays(operator, owner, settings):
    settings.EMBEDDER_URL = ""
    response = operator.post(url("correct", owner, only(owner).id), {"text": "Maria lives in Porto."})
    assert response.status_code == 422
    assert "Maria lives in Porto." in response.content.decode()
    assert "Nothing was stored" in response.content.decode()
    assert only(owner).text == "Maria lives in Lisbon."


def test_a_correction_takes_its_place_and_leaves_history(operator, owner):
    id = only(owner).id
    page = read(operator, url("correct", owner, id))
    assert page.count("Maria lives in Lisbon.") == 2, "the old text stands beside the field that begins with it"
    assert operator.post(url("correct", owner, id), {"text": "Maria lives in Porto."}).status_code == 302
    assert only(owner).text == "Maria lives in Porto."
    assert "Lisbon" not in read(operator, url("change", owner))
    history = read(operator, f"{url('change', owner)}?history=1")
    assert re.search(r"<del>.*Maria lives in Lisbon\.</del>", history)
    assert "<ins>Maria lives in Porto.</ins>" in history
    late = operator.post(url("correct", owner, id), {"text": "Maria lives in Faro."})
    assert late.status_code == 422
    assert "corrected or contradicted meanwhile" in late.content.decode()


def test_a_memory_is_pinned_and_unpinned(operator, owner):
    id = only(owner).id
    for pinned in (True, False):
        operator.post(url("pin", owner, id), {"pinned": "1" if pinned else "0"})
        assert only(owner).is_pinned is pinned
    assert operator.get(url("pin", owner, id)).status_code == 405
    assert "Check the memory" in operator.post(url("pin", owner, 2**40), {"pinned": "1"}, follow=True).content.decode()


def test_a_memory_is_forgotten_once_that_is_confirmed(operator, owner):
    id = only(owner).id
    assert "cannot be undone" in read(operator, url("forget", owner, id))
    assert only(owner).id == id
    assert "Forgotten for good" in operator.post(url("forget", owner, id), follow=True).content.decode()
    assert memory_counts([owner.pk]) == {owner.pk: 0}
    assert operator.post(url("forget", owner, id)).status_code == 404


def test_everything_is_forgotten_once_that_is_confirmed(operator, owner, maria):
    make_passage(owner, "Maria likes juice.")
    with_support = person_owner("support", maria.pk)
    make_passage(with_support, "Order 4711.")
    assert "2 memories" in read(operator, url("forget_all", owner))
    assert "Forgotten for good: 2 memories" in operator.post(url("forget_all", owner), follow=True).content.decode()
    assert memory_counts([owner.pk, with_support.pk]) == {owner.pk: 0, with_support.pk: 1}


def test_one_persons_address_does_nothing_to_anothers_memories(operator, owner):
    other = person_owner("companion", Subject.objects.create(owner="owner:0", name=unique("other")).pk)
    id = only(owner).id
    for page in ("correct", "forget"):
        assert operator.get(url(page, other, id)).status_code == 404
        assert operator.post(url(page, other, id), {"text": "Other."}).status_code == 404
    operator.post(url("pin", other, id), {"pinned": "1"})
    assert only(owner).is_pinned is False


def test_editors_meet_no_memories_of_people(editor, owner, maria):
    id = only(owner).id
    for page, args in (("change", ()), ("add_memory", ()), ("forget_all", ()), ("correct", (id,)), ("forget", (id,))):
        assert editor.get(url(page, owner, *args)).status_code == 403
        assert editor.post(url(page, owner, *args), {"text": "Other."}).status_code == 403
    assert editor.post(url("pin", owner, id), {"pinned": "1"}).status_code == 403
    for page in ("change", "erase"):
        assert editor.get(reverse(f"admin:memory_subject_{page}", args=(maria.pk,))).status_code == 403
    assert (only(owner).text, only(owner).is_pinned) == ("Maria lives in Lisbon.", False)


def test_the_sidebar_marks_where_one_is(operator, owner, maria):
    shared = shared_owner(unique("hours"))
    for address, marked in (
        (url("change", owner), "People"),
        (url("add_memory", owner), "People"),
        (reverse("admin:memory_subject_change", args=(maria.pk,)), "People"),
        (url("change", shared), "Shared knowledge"),
        (reverse("admin:memory_memoryowner_changelist"), "Shared knowledge"),
        (reverse("admin:memory_turn_changelist"), "Turns"),
    ):
        groups = operator.get(address).context["sidebar_navigation"]
        assert [item["title"] for group in groups for item in group["items"] if item["active"]] == [marked], address


def test_what_is_remembered_is_only_ever_text(operator, owner):
    make_passage(owner, "<script>alert(1)</script>")
    assert "<script>alert(1)" not in operator.get(url("change", owner)).content.decode()


def test_whoever_waits_for_the_embedder_holds_no_connection(operator, owner, embedder, start_server):
    server = start_server(EMBEDDER_URL=embedder.base_url, DATABASE_POOL_SIZE="2")
    cookies = {"sessionid": operator.cookies["sessionid"].value, "csrftoken": "c" * 32}

    def add(number):
        with server.client(headers={"X-CSRFToken": "c" * 32}, cookies=cookies) as client:
            return client.post(url("add_memory", owner), data={"text": f"Maria has {number} bicycles."}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(add, range(24))) == {302}
    assert memory_counts([owner.pk]) == {owner.pk: 25}
