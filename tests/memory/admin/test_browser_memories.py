"""An operator's day in a real browser: see what a bot knows about somebody, correct it, forget them."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from memory.browsing import agent_owner, list_memories, person_owner, shared_owner
from memory.models import Conversation, Erasure, Subject
from tests.browser import NAMELESS_CONTROLS
from tests.factories import forget_vectors, make_key, make_passage, make_user, unique
from tests.upstream import Reply

PASSWORD = "a long enough password"
MEMORY = {"memory_enabled": True, "memory_limit": 5, "memory_budget_tokens": 300, "memory_threshold": 0}


@pytest.fixture
def remembering(start_server, embedder, live_db):
    """A server with an embedder that sends only the last turn along; it waits long, whoever else uses the machine."""
    forget_vectors()
    return start_server(EMBEDDER_URL=embedder.base_url, CHAT_HISTORY_TURNS="1", MEMORY_DEADLINE_MS="10000")


@pytest.fixture
def open_as(page, live_db):
    """`open_as(server, "operator", path)` signs somebody in through the form and opens a page of the admin."""

    def open_as(server, role, path):
        user = make_user(role=role, password=PASSWORD)
        page.goto(f"{server.url}/admin/login/?next={path}")
        page.get_by_label("Username").fill(user.username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name=re.compile("log in", re.IGNORECASE)).click()
        page.wait_for_url(f"{server.url}{path}")
        return page

    return open_as


def prompt_of(call):
    return "\n".join(str(message["content"]) for message in call.messages)


def test_see_what_is_known_correct_it_and_forget_the_person(make_chat_agent, upstream, remembering, remember, open_as):
    agent = make_chat_agent(upstream, system_prompt="System.", **MEMORY)
    secret, name = make_key(agent).secret, unique("maria")
    upstream.script(*(Reply(f"Reply {number}.") for number in range(4)))

    def ask(message):
        body = {"message": message, "user": name, "session_id": unique("session")}
        with remembering.client(headers={"Authorization": f"Bearer {secret}"}) as client:
            response = client.post(f"/api/chat/{agent.slug}", json=body)
        assert response.status_code == 200, response.text
        return prompt_of(upstream.calls[-1])

    ask("I live in Lisbon.")
    remember()
    assert "I live in Lisbon." in ask("In which city do I live?")
    remember()

    people = reverse("admin:memory_subject_changelist")
    page = open_as(remembering, "operator", people)
    page.get_by_placeholder("Search for a user's name").fill(name)
    page.keyboard.press("Enter")
    page.get_by_role("link", name=name).click()
    page.get_by_role("navigation", name=name).get_by_role("link", name=agent.slug).click()
    card = page.get_by_role("listitem").filter(has_text="I live in Lisbon.").first
    expect(card).to_contain_text("fact: home")
    expect(card).to_contain_text("for “In which city do I live?”")
    card.get_by_role("link", name="Correct").click()
    page.get_by_label("What is right").fill("I live in Porto.")
    page.get_by_role("button", name="Correct it").click()
    expect(page.get_by_text("Corrected.")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="I live in Porto.").first).to_be_visible()

    prompt = ask("In which city do I live?")
    assert "I live in Porto." in prompt
    assert "Lisbon" not in prompt

    page.get_by_role("link", name="Try recall").click()
    page.get_by_label("What somebody says to the agent").fill("In which city do I live?")
    page.get_by_role("button", name="Show what is recalled").click()
    recalled = page.get_by_role("region", name=re.compile(r"^Recalled: \d"))
    expect(recalled.get_by_role("listitem").filter(has_text="I live in Porto.").first).to_be_visible()
    expect(recalled.get_by_role("listitem").filter(has_text="Lisbon")).to_have_count(0)

    page.get_by_role("link", name=name).click()
    page.get_by_role("link", name=f"Erase {name}").click()
    page.get_by_label(f"To confirm, type {name}").fill(name)
    page.get_by_role("button", name="Erase for good").click()
    expect(page.get_by_role("row", name="memories").first).to_be_visible()
    page.goto(f"{remembering.url}{people}?q={name}")
    expect(page.get_by_role("link", name=name)).to_have_count(0)
    assert not Subject.objects.filter(name=name).exists()
    prompt = ask("In which city do I live?")
    assert "Porto" not in prompt
    assert "Lisbon" not in prompt
    assert page.errors == []


def test_one_memory_is_pinned_forgotten_and_found_no_more(remembering, open_as, shop):
    subject = Subject.objects.create(owner=f"owner:{shop.pk}", name=unique("maria"))
    owner = person_owner("companion", subject.pk)
    make_passage(owner, "Maria likes tea.")
    page = open_as(remembering, "operator", reverse("admin:memory_memoryowner_change", args=(owner.pk,)))
    page.get_by_role("button", name="Pin").click()
    expect(page.get_by_text("pinned", exact=True)).to_be_visible()
    page.get_by_role("link", name="Forget…").click()
    page.get_by_role("button", name="Forget it").click()
    expect(page.get_by_text("Forgotten for good")).to_be_visible()
    assert list_memories(owner.pk).items == ()
    assert page.errors == []


def test_text_outlives_the_sign_in(remembering, open_as, shop):
    owner = person_owner("companion", Subject.objects.create(owner=f"owner:{shop.pk}", name=unique("maria")).pk)
    page = open_as(remembering, "operator", reverse("admin:memory_memoryowner_add_memory", args=(owner.pk,)))
    page.get_by_label("What is to be remembered").fill("An hour of work.")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Remember it").click()
    expect(page.get_by_role("alert")).to_contain_text("You are signed out, so nothing was saved yet.")
    expect(page.get_by_label("What is to be remembered")).to_have_value("An hour of work.")


def test_an_editor_fills_a_collection_by_keyboard(remembering, open_as):
    name = unique("hours")
    page = open_as(remembering, "editor", reverse("admin:memory_memoryowner_add"))
    page.get_by_label("Name").focus()
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Add a text").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Text").fill("We open at nine.")
    page.get_by_role("button", name="Remember it").press("Enter")
    expect(page.get_by_role("listitem").filter(has_text="We open at nine.")).to_be_visible()
    assert page.errors == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
def test_pages_fit_and_complain_of_nothing(scheme, width, remembering, open_as, make_chat_agent, upstream, shop, finish):
    agent = make_chat_agent(upstream, knowledge=["x" * 63], **MEMORY)
    subject = Subject.objects.create(owner=f"owner:{shop.pk}", name="W" * 100 + unique("w"))
    finish("Where?", "W" * 300, owner=subject.owner, subject=subject.name, agent=agent.slug)
    owners = [person_owner(agent.slug, subject.pk), shared_owner(unique("hours")), agent_owner(agent.slug)]
    passages = [make_passage(owner, "W" * 300) for owner in owners]
    erasure = Erasure.objects.create(id=uuid4(), actor="admin:anna", counts={"memories": 2}, erased_at=subject.created_at, took_ms=5)
    conversation = Conversation.objects.get(subject=subject)
    page = open_as(remembering, "superuser", "/admin/")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    paths = [f"agents/agent/{agent.pk}/memory/", f"agents/agent/{agent.pk}/recall/?person={subject.pk}&question=Where+is+W%3F"]
    paths += [f"memory/subject/{path}" for path in ("", f"{subject.pk}/change/", f"{subject.pk}/erase/")]
    paths += ["memory/memoryowner/", "memory/memoryowner/add/", f"memory/memoryowner/{owners[1].pk}/delete/"]
    paths += ["memory/erasure/", f"memory/erasure/{erasure.pk}/change/", f"memory/conversation/{conversation.pk}/change/"]
    paths += [f"memory/turn/{conversation.turns.get().pk}/change/"]
    for owner, passage in zip(owners, passages, strict=True):
        paths += [f"memory/memoryowner/{owner.pk}/{path}" for path in ("change/?history=1", "add/", "forget/")]
        paths += [f"memory/memoryowner/{owner.pk}/{passage}/{path}/" for path in ("correct", "forget")]
    for path in paths:
        response = page.goto(f"{remembering.url}/admin/{path}")
        assert response.status == 200, path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.evaluate(NAMELESS_CONTROLS) == [], path
    assert page.errors == []
