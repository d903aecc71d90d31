"""Chromium for tests: `browser`, one a worker, and `page`, fresh for each test.

The system's Chromium is used (CHROMIUM names another one), else the one that Playwright installed. Where there is none the
tests are skipped and say so; with CI=true they fail instead, because there they must run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Pages under test may load nothing from elsewhere.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
]
# Controls in the page's own part that a screen reader would read out without a name.
NAMELESS_CONTROLS = """() => [...document.querySelectorAll("#main :is(input, select, textarea, button, a[href])")]
    .filter((control) => control.type !== "hidden" && control.checkVisibility())
    .filter((control) => !control.labels?.length && !control.textContent.trim() && !control.ariaLabel && !control.title)
    .filter((control) => !control.placeholder && !(control.type === "submit" && control.value))
    .map((control) => control.outerHTML.slice(0, 200))"""
RESULTS_DIR = Path(__file__).resolve().parent.parent / "test-results"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put browser tests last: from the first one on an event loop runs in this thread, which `asyncio.run` cannot bear."""
    items.sort(key=lambda item: "browser" in getattr(item, "fixturenames", ()))
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


CALL_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    if call.when == "call":
        item.stash[CALL_FAILED] = outcome.get_result().failed


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for this worker's tests."""
    # Playwright's event loop runs in this thread, so Django would refuse the ORM to the test itself.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        executable = _chromium(playwright)
        if executable is None:
            reason = "no Chromium found: install the package 'chromium', or set CHROMIUM to a Chromium or Chrome"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        chromium = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS, timeout=120_000)
        yield chromium
        chromium.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page without cookies. `page.errors` holds uncaught exceptions and console errors (CSP violations among them)."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    context.set_default_timeout(30_000)
    page = context.new_page()
    errors: list[str] = []
    page.errors = errors  # a plain list on the object that the test already holds
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    expect.set_options(timeout=30_000)
    yield page
    if request.node.stash.get(CALL_FAILED, False):
        RESULTS_DIR.mkdir(exist_ok=True)
        page.screenshot(path=RESULTS_DIR / f"{request.node.name[:80]}.png".replace("/", "_"), full_page=True)
    context.close()


def _chromium(playwright: Playwright) -> str | None:
    named = os.environ.get("CHROMIUM")
    candidates = [named] if named else ["chromium", "chromium-browser", "google-chrome", playwright.chromium.executable_path]
    return next((found for candidate in candidates if (found := shutil.which(candidate))), None)
