"""Conversations on the chat page, in Chromium, with the real server and a scripted model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Page, Route, expect

from agents.models import Agent
from tests.agents.widget.conftest import ChatScreen
from tests.live_server import LiveServer
from tests.upstream import Gate, Refusal, Reply, Upstream
from tests.waiting import eventually

OpenChat = Callable[..., ChatScreen]
MakeAgent = Callable[..., Any]


def contents(call: Any) -> list[str]:
    return [message["content"] for message in call.messages]


def test_an_answer_streams_in(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script(Reply(chunks=["Hello ", "**dear** ", "person."], gate=gate, gate_before_chunk=3))
    screen = open_chat(make_chat_agent(upstream, name="Support", greeting="How can I *help*?"))
    expect(screen.answer).to_have_text("How can I help?")

    screen.say("Good morning")
    expect(screen.said).to_have_text("Good morning")
    expect(screen.answer).to_have_text("Hello dear")
    expect(screen.stop).to_be_visible()
    expect(screen.message).to_have_value("")
    gate.open()

    expect(screen.answer).to_have_text("Hello dear person.")
    expect(screen.answer.locator("strong")).to_have_text("dear")
    expect(screen.send).to_be_visible()
    expect(screen.stop).to_be_hidden()
    assert screen.page.errors == []


def test_stop_keeps_what_came_and_ends_the_call(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    upstream.script(Reply(chunks=["Once ", "upon ", "a time"], gate=Gate(), gate_before_chunk=3), Reply("Yes?"))
    screen = open_chat(make_chat_agent(upstream))
    screen.say("A story")
    expect(screen.answer).to_have_text("Once upon")

    screen.stop.click()

    upstream.wait_for_disconnect()
    expect(screen.page.get_by_text("Stopped", exact=True)).to_be_visible()
    expect(screen.answer).to_have_text("Once upon")
    expect(screen.message).to_be_focused()
    screen.say("Next")
    expect(screen.answer).to_have_text("Yes?")


def test_a_failed_message_is_kept_and_sent_again(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    upstream.script(Refusal(401))
    screen = open_chat(make_chat_agent(upstream))
    screen.say("Precious words")

    expect(screen.problem).to_contain_text("The model behind this agent could not answer just now.")
    expect(screen.said).to_have_text("Precious words")
    screen.page.reload()
    expect(screen.problem).to_contain_text("could not answer")
    upstream.script(Reply("Here I am."))
    screen.retry.click()

    expect(screen.answer).to_have_text("Here I am.")
    expect(screen.said).to_have_text(["Precious words"])
    expect(screen.problem).to_have_count(0)
    expect(screen.message).to_be_focused()


def test_an_answer_that_breaks_midway_is_kept(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    upstream.script(Reply(chunks=["Half ", "an ", "answer"], cut_after_chunks=2), Reply("A whole answer"))
    screen = open_chat(make_chat_agent(upstream))
    screen.say("Tell me")

    expect(screen.problem).to_be_visible()
    expect(screen.answer).to_have_text("Half an")
    expect(screen.page.get_by_text("Not complete")).to_be_visible()
    screen.retry.click()

    expect(screen.answers).to_have_text(["A whole answer"])


def test_a_server_that_dies_midway_loses_no_word(
    page: Page, start_server: Callable[..., LiveServer], make_chat_agent: MakeAgent, upstream: Upstream
) -> None:
    server = start_server()
    upstream.script(Reply(chunks=["First ", "second"], gate=Gate(), gate_before_chunk=2))
    page.goto(f"{server.url}/chat/{make_chat_agent(upstream).slug}")
    screen = ChatScreen(page, origin=server.url)
    screen.say("Are you there?")
    expect(screen.answer).to_have_text("First")

    workers = server.workers
    for process in (workers[0].parent(), *workers):
        process.kill()

    expect(screen.problem).to_contain_text("The connection broke before the answer was complete.")
    expect(screen.answer).to_have_text("First")
    screen.retry.click()
    expect(screen.problem).to_contain_text("The server cannot be reached.")
    expect(screen.said).to_have_text(["Are you there?"])
    page.get_by_role("button", name="Edit message").click()
    expect(screen.message).to_have_value("Are you there?")
    expect(screen.message).to_be_focused()


def test_retry_waits_as_long_as_the_server_asks(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    """The answer stands for any limit, such as a proxy's in front of the server."""
    screen = open_chat(make_chat_agent(upstream))
    screen.page.clock.install(time=0)

    def refuse(route: Route) -> None:
        route.fulfill(status=429, headers={"Retry-After": "2"}, content_type="text/html", body="<h1>Slow down</h1>")

    screen.page.route("**/api/chat/*", refuse, times=1)
    screen.page.clock.pause_at(3600)  # a label that stands for a second would be missed on a busy machine
    screen.say("Quick, quick")

    expect(screen.problem).to_contain_text("Too many messages in a short time. Please wait 2 seconds.")
    expect(screen.page.get_by_role("button", name="Retry in 2 s")).to_be_disabled()
    screen.page.clock.run_for(1_000)
    expect(screen.page.get_by_role("button", name="Retry in 1 s")).to_be_disabled()
    screen.page.clock.resume()
    screen.page.get_by_role("button", name="Retry", exact=True).click()
    expect(screen.answer).to_have_text("Hello from the upstream.")


def test_a_budget_that_resets_in_days_is_no_countdown(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    screen = open_chat(make_chat_agent(upstream))
    spent = "The budget 'support' is spent. It resets at 2026-12-01T00:00:00+00:00."

    def refuse(route: Route) -> None:
        route.fulfill(status=402, headers={"Retry-After": "777600"}, content_type="application/problem+json", json={"detail": spent})

    screen.page.route("**/api/chat/*", refuse, times=1)
    screen.say("Anybody there?")

    expect(screen.problem.locator("p").first).to_have_text(spent)
    screen.retry.click()
    expect(screen.answer).to_have_text("Hello from the upstream.")


def test_an_agent_that_is_switched_off_meanwhile(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream, api: Any) -> None:
    agent = make_chat_agent(upstream, greeting="Good day!")
    screen = open_chat(agent)
    expect(screen.page.get_by_role("log")).to_contain_text("Good day!")  # the page knows its agent before that is switched off
    Agent.objects.filter(pk=agent.pk).update(is_active=False)
    eventually(lambda: api.get(f"/api/agents/{agent.slug}").status_code == 404, what="the agent is gone")

    screen.say("Hello?")

    expect(screen.problem).to_contain_text("This agent is not available.")
    expect(screen.said).to_have_text("Hello?")


def test_a_message_that_is_too_long_can_be_edited(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    screen = open_chat(make_chat_agent(upstream))
    screen.message.fill("x" * 40_000)
    screen.send.click()

    expect(screen.problem).to_contain_text("32")  # how much is allowed
    screen.message.fill("and more")
    screen.page.get_by_role("button", name="Edit message").click()

    assert screen.message.input_value() == "x" * 40_000 + "\nand more"
    assert upstream.calls == []


def test_a_reload_keeps_conversation_session_and_draft(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    upstream.script(Reply("Hello Ada."), Reply("You are Ada."))
    screen = open_chat(make_chat_agent(upstream, system_prompt="Be kind."))
    screen.say("I am Ada")
    screen.wait_until_idle()
    screen.message.fill("Who am")

    screen.page.reload()

    expect(screen.said).to_have_text(["I am Ada"])
    expect(screen.answers).to_have_text(["Hello Ada."])
    expect(screen.message).to_have_value("Who am")
    screen.say("Who am I?")
    expect(screen.answers).to_have_text(["Hello Ada.", "You are Ada."])
    assert contents(upstream.calls[-1])[1:] == ["I am Ada", "Hello Ada.", "Who am I?"]


def test_a_reload_in_the_middle_keeps_what_came(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    upstream.script(Reply(chunks=["Some ", "more"], gate=Gate(), gate_before_chunk=2))
    screen = open_chat(make_chat_agent(upstream))
    screen.say("Go on")
    expect(screen.answer).to_have_text("Some")

    screen.page.reload()

    expect(screen.said).to_have_text(["Go on"])
    expect(screen.answers).to_have_text(["Some"])
    expect(screen.page.get_by_text("Stopped", exact=True)).to_be_visible()


def test_a_new_conversation_forgets_the_old_one(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script(Reply("Hello Ada."), Reply(chunks=["Wait ", "for it"], gate=gate, gate_before_chunk=2), Reply("I do not know."))
    screen = open_chat(make_chat_agent(upstream, greeting="Welcome."))
    screen.say("I am Ada")
    screen.wait_until_idle()
    screen.say("And now?")
    expect(screen.answer).to_have_text("Wait")

    screen.page.get_by_role("button", name="New conversation").click()

    expect(screen.answers).to_have_text(["Welcome."])
    expect(screen.said).to_have_count(0)
    expect(screen.message).to_be_focused()
    screen.say("Who am I?")
    expect(screen.answer).to_have_text("I do not know.")
    assert contents(upstream.calls[-1])[1:] == ["Who am I?"]


def test_agents_have_conversations_of_their_own(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    first, second = make_chat_agent(upstream), make_chat_agent(upstream)
    screen = open_chat(first)
    screen.say("For the first one")
    screen.wait_until_idle()

    assert open_chat(second).said.count() == 0


def test_the_log_follows_only_who_is_at_its_end(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    gate = Gate()
    lines = [f"Line {number}\n\n" for number in range(120)]
    upstream.script(Reply(chunks=lines, gate=gate, gate_before_chunk=80))
    screen = open_chat(make_chat_agent(upstream))
    scroll = screen.page.get_by_role("group", name="Messages")
    screen.say("Count")
    expect(screen.page.get_by_text("Line 78", exact=True)).to_be_in_viewport()

    scroll.hover()
    screen.page.mouse.wheel(0, -2000)
    expect(screen.page.get_by_role("button", name="Newest message")).to_be_visible()
    before = scroll.evaluate("element => element.scrollTop")
    gate.open()
    screen.wait_until_idle()

    assert scroll.evaluate("element => element.scrollTop") == before
    screen.page.get_by_role("button", name="Newest message").click()
    expect(screen.page.get_by_text("Line 119", exact=True)).to_be_in_viewport()
    expect(screen.page.get_by_role("button", name="Newest message")).to_be_hidden()


def test_the_demo_model_says_what_it_is(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    label = "Built-in demo model, not for real answers"

    expect(open_chat(make_chat_agent(upstream, provider={"is_demo": True})).page.get_by_text(label)).to_be_visible()
    real = open_chat(make_chat_agent(upstream, greeting="Hi."))
    expect(real.answer).to_have_text("Hi.")
    expect(real.page.get_by_text(label)).to_be_hidden()


def test_code_can_be_copied(open_chat: OpenChat, make_chat_agent: MakeAgent, upstream: Upstream) -> None:
    upstream.script(Reply("```sh\nls -l | wc\n```"))
    screen = open_chat(make_chat_agent(upstream))
    screen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    screen.say("How?")
    screen.wait_until_idle()

    screen.page.clock.install(time=0)
    screen.page.clock.pause_at(3600)  # a label that stands for two seconds would be missed on a busy machine
    screen.page.get_by_role("button", name="Copy").click()

    expect(screen.page.get_by_role("button", name="Copied")).to_be_visible()
    assert screen.page.evaluate("navigator.clipboard.readText()") == "ls -l | wc\n"


def test_without_javascript_the_page_gives_the_command(
    browser: Browser, server: LiveServer, make_chat_agent: MakeAgent, upstream: Upstream
) -> None:
    agent = make_chat_agent(upstream)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()

    page.goto(f"{server.url}/chat/{agent.slug}")

    command = page.locator("noscript pre")
    expect(command).to_be_visible()
    assert f"curl -X POST {server.url}/api/chat/{agent.slug}" in str(command.text_content())
    expect(page.get_by_label("Your message")).to_be_disabled()
    context.close()
