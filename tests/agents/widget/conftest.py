"""A person in front of the chat page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request

from tests.live_server import LiveServer

# Runs before any script of the page: what the content security policy refused ends up in `window.violations`.
WATCH_VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(`${event.effectiveDirective}: ${event.blockedURI}`));
"""


class ChatScreen:
    """The page of one agent, by what people see of it."""

    def __init__(self, page: Page, *, origin: str) -> None:
        self.page = page
        self.message = page.get_by_label("Your message")
        self.send = page.get_by_role("button", name="Send")
        self.stop = page.get_by_role("button", name="Stop")
        self.retry = page.get_by_role("button", name="Retry")
        self.log = page.get_by_role("log")
        self.said = page.locator(".chat-person .chat-text")
        self.answers = page.locator(".chat-agent .chat-text")
        self.problem = page.get_by_role("alert")
        self.strangers: list[str] = []
        """Addresses that the page asked for outside its own origin."""
        page.on("request", lambda request: self._watch(request, origin))

    def _watch(self, request: Request, origin: str) -> None:
        if not request.url.startswith(f"{origin}/"):
            self.strangers.append(request.url)

    def say(self, text: str) -> None:
        self.wait_until_idle()
        self.message.fill(text)
        self.message.press("Enter")

    @property
    def answer(self) -> Locator:
        """The newest one."""
        return self.answers.last

    def wait_until_idle(self) -> None:
        self.page.locator(".chat:not([data-busy])").wait_for()
        self.send.wait_for()

    @property
    def violations(self) -> list[str]:
        return list(self.page.evaluate("window.violations"))


@pytest.fixture
def open_chat(server: LiveServer, page: Page) -> Iterator[Callable[..., ChatScreen]]:
    """Open the chat page of an agent; no such test may meet a violation of the page's policy or a request to elsewhere."""
    screens: list[ChatScreen] = []
    page.add_init_script(WATCH_VIOLATIONS)

    def open_chat(agent: Any) -> ChatScreen:
        screen = ChatScreen(page, origin=server.url)
        page.goto(f"{server.url}/chat/{agent.slug}")
        screens.append(screen)
        return screen

    yield open_chat
    for screen in screens:
        assert screen.violations == []
        assert screen.strangers == []
