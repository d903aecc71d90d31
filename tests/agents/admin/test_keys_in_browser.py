"""An operator makes a key in a real browser, uses it as the page says, and revokes it."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from agents.models import Agent, ApiKey
from tests.factories import make_key_owner
from tests.live_server import LiveServer
from tests.signing_in import sign_in_as
from tests.upstream import Upstream

LIST = "/admin/agents/apikey/"


@pytest.fixture
def operator(page: Page, server: LiveServer, live_db: None) -> Page:
    """A page of somebody who is signed in as an operator."""
    sign_in_as("operator", page, server)
    return page


@pytest.fixture
def agent(make_chat_agent: Any, upstream: Upstream) -> Agent:
    Agent.objects.filter(name="For keys alone").update(name="Another test's")
    return make_chat_agent(upstream, access="key", name="For keys alone")


def test_make_use_and_revoke_a_key(operator: Page, server: LiveServer, agent: Agent) -> None:
    page, owner = operator, make_key_owner(name="Web shop")
    page.goto(f"{server.url}{LIST}add/")
    page.locator("#id_name").fill("Half-typed")
    page.get_by_label(re.compile("For keys alone")).check()
    page.get_by_role("button", name="Save", exact=True).click()  # no owner chosen yet
    expect(page.get_by_text("This field is required.").first).to_be_visible()
    expect(page.locator("#id_name")).to_have_value("Half-typed")
    expect(page.get_by_label(re.compile("For keys alone"))).to_be_checked()
    page.locator("select[name=owner]").select_option(str(owner.pk))
    page.get_by_role("button", name="Save", exact=True).click()
    secret = page.locator("[data-secret]").text_content()
    key = ApiKey.objects.get(owner=owner)
    assert key.is_valid(secret)

    command = page.locator("#example").text_content()
    assert command is not None
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert '"reply"' in done.stdout, done.stdout

    expect(page).to_have_url(f"{server.url}{LIST}{key.pk}/change/")  # from now on a reload sends no form
    page.reload()
    expect(page).to_have_url(f"{server.url}{LIST}{key.pk}/change/")
    assert secret not in page.content()
    assert ApiKey.objects.filter(owner=owner).count() == 1

    page.get_by_role("link", name="Revoke…").click()
    page.get_by_role("button", name="Revoke it for good").click()
    expect(page.get_by_text("is revoked: it and its tokens are refused everywhere within 5 seconds")).to_be_visible()
    assert ApiKey.objects.get(pk=key.pk).revoked
    assert page.errors == []


def test_the_buttons_copy_what_they_say(operator: Page, server: LiveServer, agent: Agent) -> None:
    page, owner = operator, make_key_owner()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    page.goto(f"{server.url}{LIST}add/")
    page.locator("#id_name").fill("A key")
    page.locator("select[name=owner]").select_option(str(owner.pk))
    page.get_by_label(re.compile("For keys alone")).check()
    page.get_by_role("button", name="Save", exact=True).click()
    secret = page.locator("[data-secret]").text_content()
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.get_by_role("button", name="Copy the command").click()
    expect(page.get_by_role("button", name="Copied")).to_have_count(2)
    assert f"Bearer {secret}" in page.evaluate("navigator.clipboard.readText()")
    assert page.errors == []
