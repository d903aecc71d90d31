"""The rule for the cheaper model on the edit page, and which model would answer a message."""

from __future__ import annotations

import html

import pytest
from django.urls import reverse

from agents.models import WHAT_IS_SIMPLE
from agents.versions.drafts import draft_of
from tests.factories import make_agent, make_provider

pytestmark = pytest.mark.django_db


def page(client, agent, name="route", **query):
    response = client.get(reverse(f"admin:agents_agent_{name}", args=(agent.pk,)), query)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


@pytest.fixture
def agent():
    provider = make_provider(slug="vendor")
    return make_agent(provider=provider, model="large", simple_model="small", simple_max_chars=20, simple_not_words=["refund"])


def test_the_edit_page_says_the_rule_in_a_sentence(editor, agent):
    rule = "Messages of at most 20 characters that contain none of “refund” are answered by small at vendor, all others by large at vendor."
    assert rule in page(editor, agent, "change")
    assert rule in page(editor, agent)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("Hello!", "small at vendor answers: the message is simple."),
        ("A refund!", "large at vendor answers: the message contains “refund”."),
        ("<b>" * 9, "large at vendor answers: it has 27 characters, and a simple message has at most 20."),
    ],
)
def test_a_message_can_be_tried_against_the_rule(editor, agent, message, why):
    assert why in page(editor, agent, message=message)


def test_the_draft_is_what_is_tried(editor, agent, form_of):
    changed = {"simple_not_words": " hello \r\n\r\nHELLO\r\nopening  hours", "simple_max_chars": "30"}
    assert editor.post(reverse("admin:agents_agent_change", args=(agent.pk,)), form_of(agent, **changed)).status_code == 302
    draft = draft_of(agent)
    assert (draft.simple_not_words, draft.simple_max_chars) == (["hello", "opening hours"], 30)
    assert "large at vendor answers: the message contains “hello”." in page(editor, agent, message="Hello!")
    saved_again = editor.post(reverse("admin:agents_agent_change", args=(agent.pk,)), form_of(agent), follow=True)
    assert "is as it was" in saved_again.content.decode()


@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        ({"simple_not_words": "x" * 101}, "Line 1:"),
        ({"simple_not_words": "\n".join(f"w{n}" for n in range(101))}, "no more than 100"),
        ({"simple_max_chars": "100001"}, "Enter at most 100000."),
    ],
)
def test_what_is_out_of_bounds_is_said(editor, agent, form_of, changed, remedy):
    response = editor.post(reverse("admin:agents_agent_change", args=(agent.pk,)), form_of(agent, **changed))
    assert response.status_code == 422
    assert remedy in html.unescape(response.content.decode())


def test_without_a_cheaper_model_the_page_says_how_to_name_one(editor):
    agent = make_agent(provider=make_provider(slug="vendor"), model="large")
    text = page(editor, agent, message="Hello!")
    assert "There is no cheaper model: large at vendor answers every message." in text
    assert "#field-simple_model" in text


def test_a_classifier_is_part_of_the_rule_and_is_not_asked_by_looking(editor, agent, form_of):
    changed = {"classifier_enabled": "on", "classifier_model": "tiny", "classifier_instruction": "Greetings\r\nare simple."}
    assert editor.post(reverse("admin:agents_agent_change", args=(agent.pk,)), form_of(agent, **changed)).status_code == 302
    draft = draft_of(agent)
    assert (draft.classifier_enabled, draft.classifier_model) == (True, "tiny")
    assert draft.classifier_instruction == "Greetings\nare simple."
    text = page(editor, agent, message="Hello!")
    assert "and that tiny at vendor calls simple are answered by small at vendor" in text
    assert "tiny at vendor is asked whether the message is simple." in text
    assert reverse("admin:agents_agent_route_ask", args=(agent.pk,)) in text


def test_what_counts_as_simple_is_shown_in_full(editor, agent):
    assert WHAT_IS_SIMPLE in page(editor, agent, "change")
