"""An editor's day in a real browser: sign in, edit, try, publish, look at the difference, roll back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, Route, expect

from agents import roles
from agents.models import Agent, Provider
from agents.versions.drafts import draft_of, start_draft
from observability.api import count_tokens
from tests.browser import NAMELESS_CONTROLS
from tests.factories import make_provider, make_user, make_version
from tests.live_server import LiveServer
from tests.upstream import Upstream
from tests.waiting import eventually

PASSWORD = "a long enough password"


def sign_in(page: Page, user: User) -> None:
    page.get_by_label("Username").fill(user.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name=re.compile("log in", re.IGNORECASE)).click()


@pytest.fixture
def open_as(page: Page, server: LiveServer, live_db: None) -> Callable[..., Page]:
    """`open_as("editor", path)` signs somebody in through the form and opens a page of the admin."""

    def open_as(role: str, path: str) -> Page:
        user = make_user(role=role, password=PASSWORD)
        page.goto(f"{server.url}/admin/login/?next={path}")
        sign_in(page, user)
        page.wait_for_url(f"{server.url}{path}")
        return page

    return open_as


@pytest.fixture
def agent(make_chat_agent: Any, upstream: Upstream) -> Agent:
    return make_chat_agent(upstream, system_prompt="You help.\nBe brief.", name="Browsed agent")


def counted(text: str) -> re.Pattern[str]:
    return re.compile(rf"^{count_tokens(text, model='')} tokens of the prompt budget")


def change_path(agent: Agent) -> str:
    return f"/admin/agents/agent/{agent.pk}/change/"


def test_what_needs_long_term_memory_shows_where_that_is_on(agent: Agent, open_as: Callable[..., Page]) -> None:
    page = open_as("editor", change_path(agent))
    days = page.get_by_label("Forget memories after (days)")
    expect(days).to_be_hidden()
    expect(page.get_by_label("Delete conversations after (days)")).to_be_visible()
    page.get_by_label("Long-term memory").check()
    days.fill("99999")
    page.get_by_label("Long-term memory").uncheck()
    expect(days).to_be_hidden()
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_text("Enter at most 36500.", exact=True)).to_be_visible()
    days.fill("90")
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_text("Draft v2 is saved")).to_be_visible()
    assert draft_of(agent).memory_days == 90


def test_edit_publish_and_roll_back(agent: Agent, open_as: Callable[..., Page]) -> None:
    page = open_as("editor", change_path(agent))
    prompt = page.get_by_label("Instructions (system prompt)")
    count = page.locator("[data-tokens] output")
    expect(count).to_have_text(counted("You help.\nBe brief."))
    prompt.fill("You help.\nBe thorough and kind.")
    expect(count).to_have_text(counted("You help.\nBe thorough and kind."))
    expect(page.get_by_text("Not saved yet")).to_be_visible()
    page.get_by_role("button", name="Save and review for publishing").click()
    expect(page.locator("del")).to_contain_text("Be brief.")
    expect(page.locator("ins")).to_contain_text("Be thorough and kind.")
    page.get_by_role("button", name="Publish v2").click()
    expect(page.get_by_text("v2 is live")).to_be_visible()
    agent.refresh_from_db()
    assert agent.live_version.system_prompt == "You help.\nBe thorough and kind."
    page.get_by_role("button", name="Roll back to v1").click()
    expect(page.get_by_text("v1 is live again")).to_be_visible()
    agent.refresh_from_db()
    assert agent.live_version.number == 1
    assert page.errors == []


def test_try_it_talks_to_the_draft(agent: Agent, upstream: Upstream, open_as: Callable[..., Page]) -> None:
    make_version(agent, published=False, system_prompt="Drafted words.")
    page = open_as("editor", f"/admin/agents/agent/{agent.pk}/try/")
    message = page.get_by_label("Your message")
    expect(message).to_be_enabled()
    message.fill("Are you there?")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("log")).to_contain_text("Are you there?")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.get_by_label("Your message")).to_have_value("")
    assert "Drafted words." in str(upstream.calls[-1].body)
    assert page.errors == []


def test_fallbacks_are_added_ordered_and_removed(agent: Agent, open_as: Callable[..., Page]) -> None:
    page = open_as("editor", change_path(agent))
    for model in ("first", "second", "third"):
        page.get_by_role("button", name="Add a fallback model").click()
        page.locator("[data-row] input").last.fill(model)
    page.locator("[data-row]").nth(2).get_by_role("button", name="Try earlier").click()
    page.locator("[data-row]").nth(0).get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_text("Draft v2 is saved")).to_be_visible()
    assert list(draft_of(agent).fallbacks.order_by("position").values_list("model", flat=True)) == ["third", "second"]
    assert page.errors == []


def test_a_colleagues_text_is_shown_beside_ones_own(agent: Agent, open_as: Callable[..., Page]) -> None:
    page = open_as("editor", change_path(agent))
    page.get_by_label("Instructions (system prompt)").fill("My words.")
    theirs = start_draft(agent, author=make_user(role="editor"))
    theirs.system_prompt = "Their words."
    theirs.save()
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was saved yet, and nothing is lost")
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_label("Theirs, saved")).to_have_value("Their words.")
    expect(page.get_by_label("Instructions (system prompt)")).to_have_value("My words.")


def test_text_outlives_the_sign_in(agent: Agent, open_as: Callable[..., Page]) -> None:
    page = open_as("editor", change_path(agent))
    prompt = page.get_by_label("Instructions (system prompt)")
    prompt.fill("An hour of work.")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("alert")).to_contain_text("You are signed out, so nothing was saved yet.")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Sign in in a new tab").click()
    sign_in(opened.value, make_user(role="editor", password=PASSWORD))
    expect(opened.value.get_by_role("link", name="Overview").first).to_be_visible()
    expect(prompt).to_have_value("An hour of work.")
    page.get_by_role("button", name="Save draft").dblclick()
    expect(page.get_by_text("Draft v2 is saved")).to_be_visible()
    assert draft_of(agent).system_prompt == "An hour of work."


def test_a_slow_double_click_saves_once(agent: Agent, open_as: Callable[..., Page]) -> None:
    page = open_as("editor", change_path(agent))
    sent: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.is_navigation_request() and route.request.method == "POST":
            sent.append(route)
        else:
            route.continue_()

    page.route("**/*", hold)
    page.get_by_label("Instructions (system prompt)").fill("Once.")
    # The page itself clicks: the driver would wait for the answer, which is held.
    page.get_by_role("button", name="Save draft").evaluate("button => { button.click(); setTimeout(() => button.click(), 1500); }")
    eventually(lambda: page.wait_for_timeout(20) or sent, what="the form is sent")
    page.wait_for_timeout(2000)
    [only] = sent
    only.continue_()
    expect(page.get_by_text("Draft v2 is saved")).to_be_visible()


def test_a_providers_form_and_an_import_outlive_the_sign_in_too(open_as: Callable[..., Page]) -> None:
    page = open_as("superuser", "/admin/agents/provider/add/")
    page.locator("[name=slug]").fill("half-typed")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Save", exact=True).click()
    refusal = page.get_by_role("alert")
    expect(refusal).to_contain_text("You are signed out, so nothing was saved yet.")
    expect(refusal).to_be_in_viewport()
    expect(page.locator("[name=slug]")).to_have_value("half-typed")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Sign in in a new tab").click()
    importing = opened.value
    sign_in(importing, make_user(role="superuser", password=PASSWORD))
    importing.goto(page.url.replace("provider/add", "agent/import"))
    importing.get_by_label("or paste it here").fill("slug: half-typed")
    importing.context.clear_cookies(name="sessionid")
    importing.get_by_role("button", name="Show what it would change").click()
    expect(importing.get_by_role("alert")).to_contain_text("You are signed out, so nothing was saved yet.")
    expect(importing.get_by_label("or paste it here")).to_have_value("slug: half-typed")
    assert page.errors == []


def test_a_providers_form_is_saved(open_as: Callable[..., Page]) -> None:
    page = open_as("superuser", "/admin/agents/provider/add/")
    slug = make_provider().slug + "-typed"
    page.locator("[name=slug]").fill(slug)
    page.locator("[name=base_url]").fill("https://models.example.com/v1")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url("**/admin/agents/provider/")
    assert Provider.objects.get(slug=slug).base_url == "https://models.example.com/v1"
    assert page.errors == []


def test_the_demo_models_banner_is_short_on_phones(open_as: Callable[..., Page]) -> None:
    Provider.objects.filter(is_default=True).update(is_default=False)
    demo = make_provider(is_default=True, is_demo=True)
    try:
        page = open_as("superuser", "/admin/agents/agent/")
        banner = page.get_by_role("note")
        expect(banner).to_contain_text("Agents that name no provider answer with")
        page.set_viewport_size({"width": 390, "height": 800})
        expect(banner.get_by_text("Agents that name no provider")).to_be_hidden()
        expect(banner.get_by_text("built-in demo model, not for real answers")).to_be_visible()
        assert banner.bounding_box()["height"] < 80
    finally:
        Provider.objects.filter(pk=demo.pk).update(is_default=False)


def test_text_outlives_a_lost_network(agent: Agent, open_as: Callable[..., Page]) -> None:
    page = open_as("editor", change_path(agent))
    page.get_by_label("Instructions (system prompt)").fill("On a train.")
    page.context.set_offline(True)
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_text("Draft v2 is saved")).to_be_visible()
    assert draft_of(agent).system_prompt == "On a train."


def test_a_role_is_given_with_a_tick(open_as: Callable[..., Page], server: LiveServer) -> None:
    roles.create_groups()
    person = make_user(role="")
    page = open_as("superuser", f"/admin/auth/user/{person.pk}/change/")
    page.get_by_label("Staff status").check()
    page.get_by_label("editors").check()
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url(re.compile(r"/admin/auth/user/(\?.*)?$"))
    assert [group.name for group in person.groups.all()] == ["editors"]
    assert User.objects.get(pk=person.pk).is_staff
    assert page.errors == []


def test_address_name_is_suggested(open_as: Callable[..., Page]) -> None:
    page = open_as("editor", "/admin/agents/agent/add/")
    page.get_by_label("Name required", exact=True).fill("Café & Crème Helper!")
    expect(page.get_by_label("Address name required")).to_have_value("cafe-creme-helper")
    assert page.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_and_complain_of_nothing(scheme: str, width: int, agent: Agent, open_as: Callable[..., Page], server: LiveServer) -> None:
    make_version(agent, published=False, system_prompt="W" * 300, note="n" * 200)
    page = open_as("superuser", "/admin/")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    pages = ["change", "settings", "versions", "versions/1", "publish", "try"]
    editor = make_user(role="editor")
    people = ["auth/user/", "auth/user/add/", f"auth/user/{editor.pk}/change/", f"auth/group/{editor.groups.get().pk}/change/"]
    others = ["", "agents/agent/", "agents/agent/import/", "agents/provider/", *people]
    for path in [*others, *(f"agents/agent/{agent.pk}/{name}/" for name in pages)]:
        page.goto(f"{server.url}/admin/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.evaluate(NAMELESS_CONTROLS) == [], path
    assert page.errors == []
