"""The chat page for keyboards, screen readers, small windows and large text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.agents.widget.conftest import ChatScreen
from tests.upstream import Gate, Reply, Upstream

OpenChat = Callable[..., ChatScreen]
MakeAgent = Callable[..., Any]

LISTEN = """() => {
  window.heard = [];
  const announcer = document.querySelector("[role=status]");
  const listen = () => announcer.textContent && heard.push(announcer.textContent);
  new MutationObserver(listen).observe(announcer, { childList: true, characterData: true, subtree: true });
}"""


def test_a_conversation_by_keyboard_alone(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    upstream.script(Reply("First answer."), Reply(chunks=["Second ", "answer"], gate=Gate(), gate_before_chunk=2), Reply("Third answer."))
    screen = open_chat(make_chat_agent(upstream))
    keyboard = screen.page.keyboard

    keyboard.press("Enter")  # nothing to send yet
    keyboard.type("One line")
    keyboard.press("Shift+Enter")
    keyboard.type("and another")
    keyboard.press("Enter")
    expect(screen.answer).to_have_text("First answer.")
    assert screen.said.inner_text() == "One line\nand another"
    screen.wait_until_idle()

    keyboard.type("Again")
    keyboard.press("Enter")
    expect(screen.answer).to_have_text("Second")
    keyboard.press("Escape")
    expect(screen.page.get_by_text("Stopped", exact=True)).to_be_visible()
    screen.wait_until_idle()
    expect(screen.message).to_be_focused()

    keyboard.type("More")
    keyboard.press("Tab")
    expect(screen.send).to_be_focused()
    keyboard.press("Space")
    expect(screen.answer).to_have_text("Third answer.")
    screen.wait_until_idle()
    expect(screen.message).to_be_focused()

    keyboard.press("Shift+Tab")  # the log, to scroll it
    expect(screen.page.get_by_role("group", name="Messages")).to_be_focused()
    keyboard.press("Shift+Tab")
    expect(screen.page.get_by_role("button", name="New conversation")).to_be_focused()
    keyboard.press("Enter")
    expect(screen.said).to_have_count(0)
    expect(screen.message).to_be_focused()
    assert len(upstream.calls) == 3


def test_what_has_the_focus_shows_it(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    screen = open_chat(make_chat_agent(upstream))
    frame = screen.page.get_by_role("group", name="Write a message")
    assert frame.evaluate("element => getComputedStyle(element).boxShadow") != "none"

    screen.page.keyboard.press("Tab")

    assert screen.send.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"


def test_an_answer_is_read_out_once_and_whole(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script(Reply(chunks=["One ", "**two** ", "three."], gate=gate, gate_before_chunk=3))
    screen = open_chat(make_chat_agent(upstream, name="Support"))
    screen.page.evaluate(LISTEN)
    screen.say("Count")
    expect(screen.answer).to_have_text("One two")
    article = screen.page.locator(".chat-agent")

    assert screen.log.get_attribute("aria-live") == "polite"
    assert article.get_attribute("aria-live") == "off"  # its growth is not read out
    assert article.get_attribute("aria-busy") == "true"
    gate.open()
    screen.wait_until_idle()

    expect(article).not_to_have_attribute("aria-busy", "true")
    heard = screen.page.evaluate("heard")
    assert heard[0] == "Answering"
    assert len(heard) == 2
    assert heard[1].split() == ["Support:", "One", "two", "three."]


def test_everything_has_a_role_and_a_name(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    screen = open_chat(make_chat_agent(upstream, name="Support"))
    screen.say("Hello")
    screen.wait_until_idle()

    expect(screen.page.get_by_role("main")).to_be_visible()
    expect(screen.page.get_by_role("heading", level=1, name="Support")).to_be_visible()
    expect(screen.page.get_by_role("region", name="Chat with Support")).to_be_visible()
    expect(screen.page.get_by_role("log", name="Conversation")).to_be_visible()
    expect(screen.page.get_by_role("textbox", name="Your message")).to_have_accessible_description(
        "Enter sends, Shift+Enter starts a new line, Esc stops an answer."
    )
    assert screen.log.get_by_role("article").all_text_contents() == ["You:Hello", "Support:Hello from the upstream.\n"]


@pytest.mark.parametrize(("width", "text_size"), [(320, "100%"), (390, "200%"), (1280, "200%")])
def test_nothing_is_cut_off(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream, width: int, text_size: str) -> None:
    wide = "`" + "x" * 200 + "`\n\n| " + " | ".join("column" for _ in range(30)) + " |\n" + "|--" * 30 + "|\n\n```\n" + "y" * 300 + "\n```"
    upstream.script(Reply(chunks=[wide]))
    screen = open_chat(make_chat_agent(upstream, provider={"is_demo": True}, name="Support with a fairly long name"))
    screen.page.set_viewport_size({"width": width, "height": 844})
    screen.page.evaluate("size => { document.documentElement.style.fontSize = size; }", text_size)
    screen.say("W" * 120)
    screen.wait_until_idle()

    assert screen.page.evaluate("document.documentElement.scrollWidth") <= width
    scroll = screen.page.get_by_role("group", name="Messages")
    assert scroll.evaluate("element => element.scrollWidth - element.clientWidth") <= 0
    assert scroll.bounding_box()["height"] > 80
    for control in (screen.message, screen.send, screen.page.get_by_role("button", name="New conversation")):
        expect(control).to_be_in_viewport(ratio=1)


def test_the_box_grows_with_the_message(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    screen = open_chat(make_chat_agent(upstream))
    before = screen.message.bounding_box()["height"]

    screen.message.fill("\n".join(["line"] * 5))
    grown = screen.message.bounding_box()["height"]
    screen.message.fill("\n".join(["line"] * 200))

    assert grown > before * 2
    assert screen.message.bounding_box()["height"] < 300
    expect(screen.send).to_be_in_viewport(ratio=1)


def test_nothing_moves_for_people_who_prefer_so(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    upstream.script(Reply(gate=Gate()))
    screen = open_chat(make_chat_agent(upstream))
    screen.page.emulate_media(reduced_motion="reduce")

    screen.say("Slowly")

    assert screen.page.locator(".chat-dot").first.evaluate("dot => getComputedStyle(dot).animationName") == "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream, scheme: str) -> None:
    screen = open_chat(make_chat_agent(upstream, provider={"is_demo": True}))
    screen.page.emulate_media(color_scheme=scheme)

    ratios = screen.page.evaluate(CONTRASTS)

    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}


# Each colour of text on each ground that it stands on, by WCAG 2's formula.
CONTRASTS = """() => {
  const probe = document.querySelector(".chat").appendChild(document.createElement("i"));
  const luminance = (name) => {
    probe.style.color = `var(--${name})`;
    const channels = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255);
    const [r, g, b] = channels.map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = ["ink paper", "ink raised", "ink said", "ink code", "ink warn-paper", "quiet paper", "quiet raised", "quiet code",
    "quiet warn-paper", "accent paper", "accent raised", "on-accent accent", "warn paper"];
  return Object.fromEntries(pairs.map((pair) => {
    const [dark, light] = pair.split(" ").map(luminance).sort((a, b) => a - b);
    return [pair, (light + 0.05) / (dark + 0.05)];
  }));
}"""
