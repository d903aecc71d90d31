"""The trace on a turn's page: what was sent, when what happened, what it cost; and how a turn is found."""

from __future__ import annotations

import asyncio
import html
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from django.urls import reverse
from playwright.sync_api import expect

from memory.browsing import person_owner
from memory.curating import forget
from memory.isolation import acting_for
from memory.models import Recalled, Turn
from memory.upkeep.policy import Policy
from memory.upkeep.run import run_upkeep
from observability.models import Attempt
from tests.browser import NAMELESS_CONTROLS
from tests.factories import make_passage, make_user
from tests.upstream import Refusal, Reply

pytestmark = pytest.mark.usefixtures("live_db")


@pytest.fixture
def ask(api):
    """Return the turn of a message."""

    def ask(agent, message="Where is my parcel?", **fields):
        response = api.post(f"/api/chat/{agent.slug}", json={"message": message, **fields})
        return Turn.objects.select_related("conversation").get(request_id=response.headers["x-request-id"])

    return ask


def page_of(turn):
    return reverse("admin:memory_turn_change", args=(turn.pk,))


def read(client, address):
    response = client.get(address)
    assert response.status_code == 200, response.content
    return html.unescape(response.content.decode())


def test_a_turn_shows_its_waterfall_its_calls_and_its_messages(make_chat_agent, upstream, open_upstream, ask, operator):
    spare = open_upstream()
    upstream.script(Refusal(500))
    spare.script(Reply("At the depot.", delay_before_first_s=0.2))
    turn = ask(make_chat_agent(upstream, system_prompt="You know <where> parcels are.", fallbacks=[(spare, "spare-model")]))
    text = read(operator, page_of(turn))
    for step in ("Stored the question", "Built the prompt", "spare-model at"):
        assert re.search(rf'<th scope="row">{step}', text)
    assert text.count("failed, upstream-failed") == 3  # tries of the first model
    assert "this version has no cheaper model" in text
    assert "The version has no long-term memory." in text
    assert "<strong>system</strong><pre>You know <where> parcels are.</pre>" in text
    assert "<strong>user</strong><pre>Where is my parcel?</pre>" in text
    assert "<code>max_tokens: 1024</code>" in text
    assert f'<pre class="ca-json" tabindex="0">{spare.calls[0].raw_body.decode()}</pre>' in text
    attempts = Attempt.objects.filter(turn_id=turn.pk)
    assert all(reverse("admin:observability_attempt_change", args=(attempt.pk,)) in text for attempt in attempts)
    bars = [
        (float(x), float(width))
        for x, width in re.findall(r'<rect x="([\d.]+)" width="([\d.]+)" y="2" height="6" class="ca-(?:step|call|loss)', text)
    ]
    assert len(bars) == 3 + 4
    assert [x for x, _ in bars] == sorted(x for x, _ in bars)
    assert all(x + width <= 100.5 for x, width in bars)


def test_a_price_of_then_and_the_cost_stand_beside_each_call(make_chat_agent, upstream, ask, operator):
    turn = ask(make_chat_agent(upstream))
    text = read(operator, page_of(turn))
    assert "11 + 7" in text
    assert "not known" in text  # nobody set a price for this model


def test_it_is_found_by_message_id_by_request_id_and_from_the_ledger(make_chat_agent, upstream, ask, operator):
    turn = ask(make_chat_agent(upstream))
    turns = reverse("admin:memory_turn_changelist")
    for wanted in (str(turn.pk), f" {turn.pk} ", turn.request_id):
        assert operator.get(turns, {"q": wanted}).headers["location"] == page_of(turn)
    for unknown in ("0" * 32, "f" * 32, "nothing", ""):
        assert operator.get(turns, {"q": unknown}).status_code == 200
    attempt = Attempt.objects.get(turn_id=turn.pk)
    assert page_of(turn) in read(operator, reverse("admin:observability_attempt_change", args=(attempt.pk,)))
    assert page_of(turn) in read(operator, reverse("admin:memory_conversation_change", args=(turn.conversation_id,)))


def test_what_is_not_there_says_why(make_chat_agent, upstream, ask, operator):
    agent = make_chat_agent(upstream, trace_days=0)
    text = read(operator, page_of(ask(agent)))
    assert text.count("the version keeps no traces, or not for as long as this is ago") == 2
    assert re.search(r'<th scope="row">test-model at', text), "the ledger knows of the call"
    cached = make_chat_agent(upstream, reply_cache_s=60)
    ask(cached)
    text = read(operator, page_of(ask(cached)))
    assert "A kept answer was found" in text
    assert "Nothing: a kept answer was given." in text


def test_editors_see_nothing_of_it(make_chat_agent, upstream, ask, editor):
    turn = ask(make_chat_agent(upstream))
    assert editor.get(page_of(turn)).status_code == 403
    assert editor.get(reverse("admin:memory_turn_changelist"), {"q": str(turn.pk)}).status_code == 403


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_fits_and_everything_has_a_name(scheme, width, make_chat_agent, upstream, ask, page, server):
    turn = ask(make_chat_agent(upstream, system_prompt="W" * 400))
    user = make_user(role="operator", password="a long enough password")
    page.goto(f"{server.url}/admin/login/?next={page_of(turn)}")
    page.get_by_label("Username").fill(user.username)
    page.get_by_label("Password").fill("a long enough password")
    page.get_by_role("button", name=re.compile("log in", re.IGNORECASE)).click()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    expect(page.get_by_role("rowheader", name="Built the prompt")).to_be_visible()
    page.get_by_text("The request's JSON, byte for byte").click()
    page.wait_for_load_state()  # with its fonts
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(NAMELESS_CONTROLS) == []
    assert page.errors == []


def test_upkeep_empties_what_is_older_than_the_version_keeps_it(make_chat_agent, upstream, ask):
    agent = make_chat_agent(upstream)
    old, new = ask(agent), ask(agent)
    Turn.objects.filter(pk=old.pk).update(created_at=datetime.now(UTC) - timedelta(days=3))

    def upkeep(*, days, is_dry):
        return asyncio.run(run_upkeep([Policy(agent=agent.slug, trace_days=days)], actor="test", is_dry=is_dry)).counts.get(agent.slug)

    assert upkeep(days=4, is_dry=False) is None
    assert upkeep(days=2, is_dry=True) == upkeep(days=2, is_dry=False) == {"traces": 1}
    old.refresh_from_db()
    new.refresh_from_db()
    assert (old.sent, old.trace, old.reply) == (None, None, "Hello from the upstream.")
    assert new.sent
    assert new.trace
    assert upkeep(days=0, is_dry=False) == {"traces": 1}


def test_a_forgotten_memory_takes_along_what_was_sent_with_it(maria, finish):
    turns = [finish(question, "In Lisbon.", owner=maria.owner, subject=maria.name) for question in ("Where?", "Where now?")]
    Turn.objects.filter(pk__in=turns).update(sent='{"messages": []}', trace={})
    owner = person_owner("companion", maria.pk)
    passage = make_passage(owner, "Maria lives in Lisbon.")
    with transaction.atomic(), acting_for([owner.pk]):
        Recalled.objects.create(turn_id=turns[0], owner=owner, passage_id=passage, position=1, score=1.0, recalled_at=datetime.now(UTC))
    with transaction.atomic():
        assert forget(owner.pk, passage) == 1
    assert Turn.objects.get(pk=turns[0]).sent is None
    assert Turn.objects.get(pk=turns[0]).trace == {}
    assert Turn.objects.get(pk=turns[1]).sent == '{"messages": []}'
