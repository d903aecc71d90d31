"""The edit page: saving drafts, refusing what cannot work, and two editors at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents.admin.simultaneous import basis_of
from agents.models import Agent, AgentVersion
from agents.versions.content import write_fallbacks
from agents.versions.drafts import discard_draft, draft_of, start_draft
from tests.factories import make_agent, make_provider, make_user, make_version

FormOf = Callable[..., dict[str, Any]]


def address(agent: Agent, page: str = "change") -> str:
    return reverse(f"admin:agents_agent_{page}", args=(agent.pk,))


def test_saving_makes_a_draft_and_leaves_what_is_live(editor: Client, form_of: FormOf) -> None:
    agent = make_agent(system_prompt="Live.")
    live = agent.live_version
    response = editor.post(address(agent), form_of(agent, system_prompt="Drafted."), follow=True)
    assert "Draft v2 is saved" in response.content.decode()
    draft = draft_of(agent)
    assert draft
    assert (draft.number, draft.system_prompt, draft.author) == (2, "Drafted.", response.wsgi_request.user)
    agent.refresh_from_db()
    assert agent.live_version == live
    assert AgentVersion.objects.get(pk=live.pk).system_prompt == "Live."


def test_saving_again_updates_the_same_draft(editor: Client, form_of: FormOf) -> None:
    agent = make_agent()
    for temperature in ("0.5", "0.7"):
        editor.post(address(agent), form_of(agent, temperature=temperature))
    assert agent.versions.count() == 2
    assert draft_of(agent).temperature == 0.7


def test_saving_nothing_new_makes_no_draft(editor: Client, form_of: FormOf) -> None:
    agent = make_agent(system_prompt="One.\nTwo.", greeting="Hi")
    response = editor.post(address(agent), form_of(agent, system_prompt="One.\r\nTwo."), follow=True)
    assert "Nothing was changed" in response.content.decode()
    assert draft_of(agent) is None


def test_fallbacks_are_kept_in_order_and_empty_rows_left_out(editor: Client, form_of: FormOf) -> None:
    agent, other = make_agent(), make_provider()
    rows = [(str(other.pk), "big"), ("", ""), ("default", ""), (str(other.pk), "small")]
    editor.post(address(agent), form_of(agent, fallbacks=rows))
    stored = draft_of(agent).fallbacks.order_by("position").values_list("position", "provider_id", "model")
    assert list(stored) == [(1, other.pk, "big"), (2, None, ""), (3, other.pk, "small")]


def test_settings_of_memory_and_conversations_are_saved(editor: Client, form_of: FormOf) -> None:
    agent, provider = make_agent(), make_provider()
    changed = {"memory_enabled": "on", "memory_threshold": "7.5", "memory_cap": "0", "memory_days": "90", "facts_by_model": "on"}
    changed |= {
        "knowledge": " handbook, prices,handbook ",
        "summaries": "on",
        "summary_provider": str(provider.pk),
        "conversation_days": "30",
    }
    assert editor.post(address(agent), form_of(agent, **changed)).status_code == 302
    draft = draft_of(agent)
    assert (draft.memory_threshold, draft.memory_cap, draft.memory_days, draft.conversation_days) == (7.5, 0, 90, 30)
    assert (draft.knowledge, draft.facts_by_model, draft.summaries) == (["handbook", "prices"], True, True)
    assert draft.summary_provider == provider
    again = form_of(agent, memory_enabled="on", facts_by_model="on", summaries="on")
    assert "is as it was" in editor.post(address(agent), again, follow=True).content.decode()


def test_both_changed_the_shared_knowledge_shows_both(editor: Client, form_of: FormOf) -> None:
    agent = make_agent(knowledge=["handbook"])
    form = form_of(agent, knowledge="handbook, prices")
    draft = start_draft(agent, author=make_user(role="editor"))
    draft.knowledge = []
    draft.summary_provider = make_provider()
    draft.save()
    response = editor.post(address(agent), form)
    assert response.status_code == 409
    [clash] = response.context["conflict"].clashes
    assert (clash.label, clash.theirs, clash.mine) == ("shared knowledge", "empty", "handbook, prices")
    assert response.context["conflict"].taken_over == ["provider for summaries and facts"]


@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        ({"system_prompt": "  \n "}, "Write at least one sentence"),
        ({"system_prompt": ""}, "Write at least one sentence"),
        ({"system_prompt": "word " * 300, "prompt_budget_tokens": "200"}, "Raise this to at least"),
        ({"temperature": "3"}, "Enter at most 2.0."),
        ({"top_p": "0"}, "Enter at least 0.01."),
        ({"max_output_tokens": "many"}, "whole number"),
        ({"provider": "987654"}, "valid choice"),
        ({"memory_enabled": "on", "memory_budget_tokens": "99999"}, "Choose less than"),
        ({"memory_threshold": "41"}, "Enter at most 40.0."),
        ({"reply_similarity": "0.69"}, "Enter at least 0.7."),
        ({"reply_similarity": "1.01"}, "Enter at most 1.0."),
        ({"memory_threshold": "nan"}, "Enter a number"),
        ({"memory_days": "-1"}, "Enter at least 0."),
        ({"conversation_days": "36501"}, "Enter at most 36500."),
        ({"knowledge": "handbook, Not A Name"}, "“Not A Name” is no name of a collection. Use 1 to 63 lower-case letters"),
        ({"knowledge": ",".join(f"k{number}" for number in range(21))}, "20"),
        ({"fallbacks": [("", "lonely-model")]}, "Choose who runs this model"),
        ({"fallbacks": [("default", "")] * 6}, "at most 5"),
        ({"system_prompt": "a\x00b"}, "Null characters are not allowed"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_typed_is_lost(
    changed: dict[str, Any], remedy: str, editor: Client, form_of: FormOf
) -> None:
    agent = make_agent()
    response = editor.post(address(agent), form_of(agent, note="Half typed & kept", **changed))
    text = response.content.decode()
    assert response.status_code == 422
    assert remedy in text
    assert "Half typed &amp; kept" in text
    assert draft_of(agent) is None


def test_colleague_saved_other_fields_meanwhile(editor: Client, form_of: FormOf) -> None:
    agent, colleague = make_agent(system_prompt="Base.", greeting="Hi"), make_user(role="editor", username="bertha")
    form = form_of(agent, system_prompt="Mine.")
    draft = start_draft(agent, author=colleague)
    draft.greeting = "Theirs"
    draft.save()
    response = editor.post(address(agent), form)
    text = response.content.decode()
    assert response.status_code == 409
    assert "bertha saved the draft (v2)" in text
    assert "Taken over from the colleague" in text
    again = form_of(agent, system_prompt="Mine.", greeting=response.context["form"]["greeting"].value(), basis=response.context["basis"])
    assert editor.post(address(agent), again).status_code == 302
    stored = draft_of(agent)
    assert (stored.system_prompt, stored.greeting) == ("Mine.", "Theirs")


def test_both_changed_the_prompt_shows_both_and_saves_neither(editor: Client, form_of: FormOf) -> None:
    agent, colleague = make_agent(system_prompt="Base."), make_user(role="editor")
    start_draft(agent, author=colleague)
    form = form_of(agent, system_prompt="Mine, half typed.")
    AgentVersion.objects.filter(agent=agent, published_at=None).delete()
    theirs = start_draft(agent, author=colleague)
    theirs.system_prompt = "Theirs, saved."
    theirs.save()
    response = editor.post(address(agent), form)
    text = response.content.decode()
    assert response.status_code == 409
    assert [(clash.theirs, clash.mine) for clash in response.context["conflict"].clashes] == [("Theirs, saved.", "Mine, half typed.")]
    assert response.context["form"]["system_prompt"].value() == "Mine, half typed."
    assert "Theirs, saved." in text
    assert draft_of(agent).system_prompt == "Theirs, saved."


def test_a_conflict_with_ones_own_other_window_names_no_colleague(sign_in: Callable[..., Client], form_of: FormOf) -> None:
    person = make_user(role="editor")
    client, agent = sign_in("editor", user=person), make_agent(system_prompt="Base.")
    form = form_of(agent, system_prompt="Here.")
    there = start_draft(agent, author=person)
    there.system_prompt = "There."
    there.greeting = "Hello from there"
    there.save()
    response = client.post(address(agent), form)
    text = response.content.decode()
    assert response.status_code == 409
    assert "You saved the draft (v2) in another window" in text
    assert "Your other window, saved" in text
    assert "Taken over from your other window" in text
    assert "the colleague" not in text
    assert "Theirs" not in text


def test_colleague_changed_the_fallbacks_meanwhile(editor: Client, form_of: FormOf) -> None:
    agent, other = make_agent(), make_provider()
    form = form_of(agent, note="Mine")
    write_fallbacks(start_draft(agent, author=None), fallbacks=[(other.pk, "big")])
    response = editor.post(address(agent), form)
    assert response.status_code == 409
    rows = [(row["provider"].value(), row["model"].value()) for row in response.context["fallbacks"].forms]
    assert rows == [(str(other.pk), "big")]


def test_draft_was_discarded_meanwhile(editor: Client, form_of: FormOf) -> None:
    agent = make_agent(system_prompt="Live.")
    make_version(agent, published=False, system_prompt="Drafted.")
    form = form_of(agent, system_prompt="Mine.")
    discard_draft(agent)
    response = editor.post(address(agent), form)
    assert response.status_code == 409
    assert response.context["form"]["system_prompt"].value() == "Mine."


@pytest.mark.parametrize("basis", ["", "x", "[]", "{}", '{"version": 1}', '{"prints": [1]}', "[" * 100_000, "\ud83d"])
def test_form_without_a_usable_basis_is_never_saved(basis: str, editor: Client, form_of: FormOf) -> None:
    agent = make_agent()
    form = form_of(agent, system_prompt="Mine.", basis=basis.encode("utf-8", "replace").decode())
    assert editor.post(address(agent), form).status_code == 409
    assert draft_of(agent) is None


def test_discarding_a_draft(editor: Client) -> None:
    agent = make_agent()
    make_version(agent, published=False)
    response = editor.post(address(agent, "discard"), follow=True)
    assert "is discarded" in response.content.decode()
    assert draft_of(agent) is None


def test_the_only_draft_of_an_agent_is_not_discarded(editor: Client) -> None:
    agent = make_agent(published=False)
    assert "Delete the agent instead" in editor.post(address(agent, "discard"), follow=True).content.decode()
    assert draft_of(agent) is not None


def test_operators_see_the_draft_and_cannot_type(sign_in: Callable[..., Client], form_of: FormOf) -> None:
    agent = make_agent(system_prompt="Read me.")
    operator = sign_in("operator")
    text = operator.get(address(agent)).content.decode()
    assert "Read me." in text
    assert "Save draft" not in text
    assert operator.post(address(agent), form_of(agent, system_prompt="Mine.")).status_code == 403


def test_csrf_is_checked(form_of: FormOf, sign_in: Callable[..., Client]) -> None:
    agent, user = make_agent(), make_user(role="editor")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user)
    assert strict.post(address(agent), form_of(agent, note="x")).status_code == 403
    assert draft_of(agent) is None


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"text": "Hello there", "model": "x"}', 200), (b"{}", 400), (b"[1]", 400), (b"no", 400), (b"[" * 100_000, 400)],
)
def test_counting_tokens(body: bytes, status: int, editor: Client) -> None:
    response = editor.post(reverse("admin:agents_agent_tokens"), body, content_type="application/json")
    assert response.status_code == status
    if status == 200:
        assert response.json() == {"tokens": 2}


def test_counting_refuses_very_long_texts(editor: Client) -> None:
    response = editor.post(reverse("admin:agents_agent_tokens"), {"text": "a" * 200_001}, content_type="application/json")
    assert response.status_code == 413


def test_counting_bears_lone_surrogates(editor: Client) -> None:
    response = editor.post(reverse("admin:agents_agent_tokens"), b'{"text": "a \\ud800 b"}', content_type="application/json")
    assert response.status_code == 200


def test_basis_changes_with_every_save(db: None) -> None:
    agent = make_agent(published=False)
    draft = draft_of(agent)
    before = basis_of(draft)
    draft.note = "Another"
    draft.save()
    assert basis_of(draft) != before


def test_a_draft_begins_without_the_live_versions_note(editor: Client, form_of: FormOf) -> None:
    agent = make_agent(note="Made the tone warmer.")
    page = editor.get(address(agent))
    assert page.context["form"]["note"].value() == ""
    assert page.context["live"].note == "Made the tone warmer."
    editor.post(address(agent), form_of(agent))
    assert draft_of(agent) is None, "an unchanged form made a draft"
    editor.post(address(agent), form_of(agent, system_prompt="Other words."))
    assert draft_of(agent).note == ""
