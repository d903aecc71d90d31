"""In a real browser: the first field of a new record has the keys, and takes them from nobody who types already."""

from __future__ import annotations

from playwright.sync_api import Page, Route, expect

from tests.live_server import LiveServer
from tests.signing_in import sign_in_as
from tests.waiting import eventually


def test_the_first_field_of_a_new_record_has_the_keys(page: Page, server: LiveServer, live_db: None) -> None:
    sign_in_as("operator", page, server)
    page.goto(f"{server.url}/admin/observability/modelprice/add/")
    expect(page.locator("input[name=provider]")).to_be_focused()


def test_who_types_before_the_page_is_whole_goes_on_typing(page: Page, server: LiveServer, live_db: None) -> None:
    sign_in_as("operator", page, server)
    held: list[Route] = []
    page.route("**/first_field.js*", lambda route: held.append(route))
    page.goto(f"{server.url}/admin/observability/modelprice/add/", wait_until="commit")
    model = page.locator("input[name=model]")
    model.click()
    page.keyboard.type("gpt-")
    eventually(lambda: page.wait_for_timeout(20) or held, what="the script is asked for")

    held[0].continue_()
    page.wait_for_load_state("load")
    page.keyboard.type("mini")
    expect(model).to_have_value("gpt-mini")
    expect(page.locator("input[name=provider]")).to_have_value("")
