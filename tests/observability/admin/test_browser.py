"""In a real browser: a budget of 5 USD a month for one key is made, watched, spent and raised."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from observability.models import Budget, ModelPrice
from tests.factories import make_key, make_key_owner
from tests.live_server import LiveServer
from tests.signing_in import sign_in_as
from tests.upstream import Upstream
from tests.waiting import eventually


@pytest.fixture
def operator(page: Page, server: LiveServer, live_db: None) -> Page:
    """A page of somebody who is signed in as an operator."""
    sign_in_as("operator", page, server)
    return page


def test_make_watch_and_raise_a_budget(operator: Page, server: LiveServer, make_chat_agent, upstream: Upstream) -> None:
    page = operator
    Budget.objects.all().delete()
    agent = make_chat_agent(upstream, access="key", name="Shop", max_output_tokens=1000)
    provider = agent.live_version.provider
    key = make_key(agent, owner=make_key_owner(name="Web shop"), name="production")

    # What the model costs: a dollar for a thousand tokens answered.
    page.goto(f"{server.url}/admin/observability/modelprice/")
    item = page.get_by_role("listitem").filter(has_text=f"at {provider.slug}:")
    item.get_by_role("link", name="enter its price").first.click()
    page.get_by_label("Input (USD per million tokens)", exact=False).first.fill("1000")
    page.get_by_label("Output (USD per million tokens)").fill("1000")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("are priced so within 5 seconds")).to_be_visible()
    assert ModelPrice.objects.get(provider=provider.slug).output_usd == 1000

    page.get_by_role("link", name="Budgets").click()
    page.goto(f"{server.url}/admin/observability/budget/add/")
    page.get_by_label("Name").fill("Web shop by the month")
    page.locator("select[name=scope]").select_option("key")
    page.get_by_label("Limit (USD)").fill("5")
    page.get_by_role("button", name="Save", exact=True).click()  # no key chosen yet
    expect(page.get_by_text("Choose the API key.")).to_be_visible()
    expect(page.get_by_label("Name")).to_have_value("Web shop by the month")
    page.locator("select[name=key]").select_option(key.key.prefix)
    page.locator("select[name=time_zone]").select_option("Europe/Berlin")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("0 %: 0.00 USD of 5.00 USD")).to_be_visible()

    def ask() -> int:
        headers = {"Authorization": f"Bearer {key.secret}"}
        answer = server.client().post(f"/api/chat/{agent.slug}", json={"message": "Hello"}, headers=headers, timeout=60)
        return answer.status_code

    eventually(lambda: ask() == 200, what="the price is known")
    page.reload()
    budget = Budget.objects.get()
    spent = budget.periods.get().spent_usd
    assert spent > 0
    expect(page.locator(".ca-budget strong")).to_have_text(f"{int(spent * 20)} %")

    budget.periods.update(spent_usd="4.99")
    assert ask() == 402
    page.reload()
    expect(page.get_by_text("refuses calls")).to_be_visible()
    page.get_by_role("link", name="Web shop by the month").click()
    expect(page.get_by_text("Calls are refused: what is left does not cover")).to_be_visible()
    page.get_by_label("Limit (USD)").fill("50")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("9 %: 4.99 USD of 50.00 USD")).to_be_visible()
    expect(page.get_by_text("refuses calls")).not_to_be_visible()
    assert ask() == 200
    assert page.errors == []
