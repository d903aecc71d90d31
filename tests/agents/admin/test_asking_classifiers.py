"""*Which model answers?* really asks a version's classifier, and shows what it said and cost."""

from __future__ import annotations

import html

import pytest

from observability.models import Attempt, ModelPrice
from tests.factories import make_user, unique
from tests.upstream import Reply


@pytest.fixture
def asking(make_chat_agent, upstream):
    """An agent whose classifier costs a dollar a million tokens, and the address at which it is asked."""
    agent = make_chat_agent(
        upstream, model=unique("large"), simple_model=unique("small"), simple_max_chars=20, classifier_enabled=True,
        classifier_model=unique("tiny"),
    )  # fmt: skip
    version = agent.live_version
    ModelPrice.objects.create(
        provider=version.provider.slug, model=version.classifier_model, input_usd=1, output_usd=1, effective_from="2020-01-01T00:00:00Z"
    )
    return agent, f"/admin/agents/agent/{agent.pk}/route/ask/"


def test_the_classifier_is_really_asked_and_its_answer_and_cost_are_shown(asking, upstream, signed_in):
    agent, address = asking
    upstream.script(Reply("Not simple.", usage=(150, 2)))
    editor = make_user(role="editor")
    said = ("Hello <b>!", "Hello <b>!", "x" * 21)
    first, again, long = (signed_in(editor).post(address, data={"message": text}) for text in said)
    assert first.status_code == 200, first.text
    names = agent.live_version.model, agent.live_version.classifier_model
    text = html.unescape(first.text)
    assert f"{names[0]} at {agent.live_version.provider.slug} answers: {names[1]}" in text
    assert "calls the message not simple" in text
    assert "Hello &lt;b&gt;!" in first.text
    row = Attempt.objects.get(agent=agent.slug)
    assert (row.kind, row.outcome, row.turn_id, row.prompt_tokens, row.key) == ("routing", "done", None, 150, "")
    assert "152 tokens in" in text
    assert ("0.000152 USD" in text) == (row.cost_usd is not None), "a server knows new prices within seconds"
    assert "nothing: it said so of the same message a while ago" in again.text
    assert "it has 21 characters" in long.text
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("role", [None, "", "operator"])
def test_only_those_who_may_change_agents_ask(asking, upstream, signed_in, role):
    _, address = asking
    assert signed_in(None if role is None else make_user(role=role)).post(address, data={"message": "Hello!"}).status_code == 403
    assert upstream.calls == []


def test_asking_takes_a_post_a_message_and_an_agent(asking, signed_in):
    _, address = asking
    editor = make_user(role="editor")
    assert signed_in(editor).get(address).status_code == 405
    assert signed_in(editor).post("/admin/agents/agent/999999999/route/ask/", data={"message": "Hello!"}).status_code == 404
    assert "This field is required" in signed_in(editor).post(address, data={"message": " "}).text
