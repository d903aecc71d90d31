"""What an owner does in the admin alone: name a sum for a key, be told as it is spent, raise it, and read what caching saved."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from playwright.sync_api import Page, expect

from agents.models import Agent, ApiKey
from observability.alerts.incidents import look
from observability.alerts.sending import send_due
from observability.models import AlertTarget, Budget
from observability.outbound import new_client
from tests.factories import unique
from tests.live_server import LiveServer
from tests.signing_in import sign_in_as
from tests.sinks import SLACK_PATH, HttpSink, http_sink
from tests.upstream import Reply, Upstream
from tests.waiting import eventually

A_DOLLAR = 1000
"""Tokens of an answer that costs one US dollar, at the price the owner enters; no answer is longer, so a call's worst case is as much."""


@pytest.fixture
def owner(page: Page, server: LiveServer, live_db: None) -> Page:
    """A page of an owner, who is signed in with an operator's rights."""
    sign_in_as("operator", page, server)
    return page


@pytest.fixture
def slack(settings: Any, live_db: None) -> Iterator[HttpSink]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with http_sink() as sink:
        yield sink
    AlertTarget.objects.filter(name__startswith="Slack of ").delete()


@pytest.fixture
def agent(make_chat_agent: Callable[..., Agent], upstream: Upstream) -> Agent:
    upstream.script(Reply("A dollar's worth.", usage=(10, A_DOLLAR)))
    return make_chat_agent(upstream, access="key", name=unique("Shop"), max_output_tokens=A_DOLLAR, reply_cache_s=300)


def run_alert_round() -> None:
    """Look for what is wrong and tell it, as a worker does every few seconds; in a thread, as Playwright's loop runs in this one."""

    async def send() -> None:
        async with new_client() as client:
            await send_due(client, now=datetime.now(UTC))

    def look_and_send() -> None:
        with transaction.atomic():
            look(now=datetime.now(UTC))
        async_to_sync(send)()
        connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(look_and_send).result()


def test_from_a_key_with_5_usd_a_month_to_what_caching_saved(owner: Page, server: LiveServer, slack: HttpSink, agent: Agent) -> None:
    wait_for_a_month_that_goes_on()
    page, name = owner, unique("Web shop")
    page.goto(f"{server.url}/admin/")
    enter_a_price(page, agent)
    add_slack(page, slack, name=f"Slack of {name}")
    secret = make_a_key(page, agent, name=name)
    set_a_budget(page, name=name)
    budget = Budget.objects.get(name__contains=name)

    def told() -> list[str]:
        """The lines of this budget that Slack got; rules that other tests trouble may speak, too."""
        run_alert_round()
        return [line for line in slack.texts if budget.name in line]

    with server.client(headers={"Authorization": f"Bearer {secret}"}) as client:

        def ask(message: str) -> httpx2.Response:
            return client.post(f"/api/chat/{agent.slug}", json={"message": message})

        # Watch it being used, and hear of it.
        assert [ask(f"Question {number}").status_code for number in range(4)] == [200] * 4
        assert [len(told()), len(told())] == [1, 1]
        assert told()[0].startswith(f"NEW: Budget “{budget.name}”: 80 % is spent (4.00 of 5.00 USD). It resets on ")
        open_key(page, name)
        expect(page.get_by_text("80 %: 4.00 USD of 5.00 USD")).to_be_visible()
        expect(page.get_by_text(re.compile(r"last used \d"))).to_be_visible()

        # See it refused.
        assert ask("Question 4").status_code == 200
        refused = ask("Question 5")
        assert (refused.status_code, refused.json()["type"]) == (402, "/errors/budget-spent")
        assert f"It resets at {month_after(datetime.now(UTC)).isoformat()}." in refused.json()["detail"]
        assert [len(told()), len(told())] == [2, 2]
        assert "(5.00 of 5.00 USD). It resets on" in told()[1]

        # Raise it, and be answered.
        page.reload()
        page.get_by_role("link", name=budget.name).click()
        expect(page.get_by_text("Calls are refused")).to_be_visible()
        page.locator("[name=limit_usd]").fill("10")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("5.00 USD of 10.00 USD")).to_be_visible()
        assert ask_within_a_second(ask, "Question 5").json()["cached"] is False

        # The same again costs nothing, and the page says what that saved.
        assert [ask("Question 5").json()["cached"] for _ in range(3)] == [True] * 3
    page.get_by_role("link", name="Cost overview").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name))
    expect(row.get_by_role("cell")).to_have_text(["6.00 USD", re.compile(r"\d+%"), "3.00 USD", "9", re.compile(r"\d"), "0"])
    saved = page.locator(".ca-card").filter(has_text="Saved by caching")
    expect(saved).to_contain_text("answers from the cache")
    assert float(re.search(r"([\d,]+\.\d\d) USD", saved.inner_text())[1].replace(",", "")) >= 3
    row.get_by_role("link", name=name).click()
    expect(page.get_by_text("60 %: 6.00 USD of 10.00 USD")).to_be_visible()
    page.wait_for_load_state()  # with its fonts
    size = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "on a phone the page is as wide as the screen"
    page.set_viewport_size(size)
    page.get_by_role("link", name="Incidents").click()
    what = page.locator("#result_list :is(th, td)", has_text=budget.name).first
    expect(what).to_be_visible()
    page.wait_for_load_state()
    page.set_viewport_size({"width": 390, "height": 844})
    assert what.evaluate("cell => cell.scrollHeight <= cell.clientHeight"), "on a phone the whole text is seen"
    assert page.errors == []


def enter_a_price(page: Page, agent: Agent) -> None:
    page.get_by_role("link", name="Prices").click()
    unpriced = page.get_by_role("listitem").filter(has_text=f"test-model at {agent.live_version.provider.slug}")
    unpriced.get_by_role("link", name="enter its price").click()
    page.locator("[name=input_usd]").fill("0")
    page.locator("[name=output_usd]").fill("1000")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("are priced so within 5 seconds")).to_be_visible()


def add_slack(page: Page, slack: HttpSink, *, name: str) -> None:
    page.get_by_role("link", name="Alert targets").click()
    page.get_by_title("Add alert target").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Address", exact=True).fill(slack.url + SLACK_PATH)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("link", name=name).first).to_be_visible()


def make_a_key(page: Page, agent: Agent, *, name: str) -> str:
    """Make a key for one agent, and its owner on the way; return its secret."""
    page.get_by_role("link", name="Key owners").click()
    page.get_by_title("Add key owner").click()
    page.get_by_label("Name*", exact=True).fill(f"Owner of {name}")
    page.get_by_label("Short name").fill(unique("owner"))
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was added successfully")).to_be_visible()
    page.get_by_role("link", name="API keys").click()
    page.get_by_title("Add API key").click()
    page.locator("#id_name").fill(name)  # agents of other tests may have "name" in theirs
    page.locator("select[name=owner]").select_option(label=f"Owner of {name}")
    page.get_by_label(re.compile(agent.name)).check()
    page.get_by_role("button", name="Save", exact=True).click()
    secret = page.locator("[data-secret]").text_content()
    assert secret is not None
    return secret


def set_a_budget(page: Page, *, name: str) -> None:
    """One click from the new key's page: only the sum is left to say."""
    page.get_by_role("link", name="I have copied it: set a budget").click()
    expect(page.locator("select[name=scope]")).to_have_value("key")
    expect(page.locator("select[name=key]")).to_have_value(ApiKey.objects.get(name=name).prefix)
    expect(page.locator("select[name=period]")).to_have_value("month")
    expect(page.get_by_text("When 50 %, 80 % and 100 % of it are spent, an alert tells")).to_contain_text(f"Slack of {name}")
    page.locator("[name=limit_usd]").fill("5")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("The budget holds within a second.")).to_be_visible()
    page.wait_for_timeout(1_000)  # as it says


def open_key(page: Page, name: str) -> None:
    page.get_by_role("link", name="API keys").click()
    page.get_by_role("link", name=name).first.click()


def ask_within_a_second(ask: Callable[[str], httpx2.Response], message: str) -> httpx2.Response:
    """Ask until the raised limit holds."""
    return eventually(lambda: answer if (answer := ask(message)).status_code == 200 else None, what="the raised budget holds", every_s=0.2)


def wait_for_a_month_that_goes_on() -> None:
    """What is spent counts for the month: none ends during the test."""
    now = datetime.now(UTC)
    if (left_s := (month_after(now) - now).total_seconds()) < 120:
        time.sleep(left_s)


def month_after(moment: datetime) -> datetime:
    """Return when the UTC month after the one of `moment` begins."""
    year, month = divmod(moment.year * 12 + moment.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)
