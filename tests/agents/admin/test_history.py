"""Publishing, history, differences and rolling back."""

from __future__ import annotations

from django.test import Client
from django.urls import reverse

from agents.models import Agent, AgentVersion, Publication
from tests.factories import make_agent, make_provider, make_version


def address(agent: Agent, page: str, *args: int) -> str:
    return reverse(f"admin:agents_agent_{page}", args=(agent.pk, *args))


def test_review_shows_the_difference_with_signs(editor: Client) -> None:
    agent = make_agent(system_prompt="Be kind.\nBe brief.")
    make_version(agent, published=False, system_prompt="Be kind.\nBe thorough.")
    text = editor.get(address(agent, "publish")).content.decode()
    assert '<span aria-hidden="true">\u2212</span><del><span class="ca-unseen">removed: </span>Be brief.</del>' in text
    assert '<span aria-hidden="true">+</span><ins><span class="ca-unseen">added: </span>Be thorough.</ins>' in text


def test_publishing_makes_the_draft_live_and_says_by_whom(editor: Client) -> None:
    agent = make_agent()
    draft = make_version(agent, published=False, system_prompt="New.")
    basis = editor.get(address(agent, "publish")).context["basis"]
    response = editor.post(address(agent, "publish"), {"basis": basis}, follow=True)
    agent.refresh_from_db()
    assert agent.live_version == draft
    assert "make v1 live again" in response.content.decode()
    assert Publication.objects.filter(version=draft, kind="publish").get().actor == response.wsgi_request.user


def test_only_what_was_shown_is_published(editor: Client) -> None:
    agent = make_agent()
    draft = make_version(agent, published=False, system_prompt="Shown.")
    basis = editor.get(address(agent, "publish")).context["basis"]
    draft.system_prompt = "Changed by a colleague."
    draft.save()
    response = editor.post(address(agent, "publish"), {"basis": basis})
    assert response.status_code == 409
    assert "Changed by a colleague." in response.content.decode()
    agent.refresh_from_db()
    assert agent.live_version.number == 1


def test_incomplete_drafts_are_not_published(editor: Client) -> None:
    agent = make_agent(published=False, provider=make_provider(default_model=""), model="")
    response = editor.get(address(agent, "publish"))
    assert "Name a model" in response.content.decode()
    response = editor.post(address(agent, "publish"), {"basis": response.context["basis"]}, follow=True)
    assert "Name a model" in response.content.decode()
    agent.refresh_from_db()
    assert agent.live_version is None


def test_rolling_back_is_one_post(editor: Client) -> None:
    agent = make_agent(system_prompt="First.")
    make_version(agent, system_prompt="Second.")
    assert editor.get(address(agent, "make_live", 1)).status_code == 405
    response = editor.post(address(agent, "make_live", 1), follow=True)
    agent.refresh_from_db()
    assert agent.live_version.number == 1
    assert "To undo, make v2 live again" in response.content.decode()


def test_impossible_roll_backs_are_explained(editor: Client) -> None:
    agent = make_agent()
    make_version(agent, published=False)
    assert "is live already" in editor.post(address(agent, "make_live", 1), follow=True).content.decode()
    assert "is a draft" in editor.post(address(agent, "make_live", 2), follow=True).content.decode()
    assert editor.post(address(agent, "make_live", 3)).status_code == 404


def test_history_names_every_version_and_its_changes(editor: Client) -> None:
    agent = make_agent(system_prompt="First.")
    make_version(agent, temperature=0.4, note="Steadier")
    entries = editor.get(address(agent, "versions")).context["entries"]
    assert [(entry.version.number, [change.field for change in entry.changed]) for entry in entries] == [(2, ["temperature"]), (1, [])]
    text = editor.get(address(agent, "versions")).content.decode()
    assert "Steadier" in text
    assert "Roll back to v1" in text
    assert "Roll back to v2" not in text


def test_published_versions_are_read_only_by_any_address(editor: Client) -> None:
    agent = make_agent(system_prompt="Fixed.")
    version = agent.live_version
    page = address(agent, "version", 1)
    assert "Fixed." in editor.get(page).content.decode()
    for path in (
        f"/admin/agents/agentversion/{version.pk}/change/",
        "/admin/agents/agentversion/",
        f"/admin/agents/agentversion/{version.pk}/delete/",
    ):
        assert editor.post(path, {"system_prompt": "Hacked."}).status_code == 404
    editor.post(page, {"system_prompt": "Hacked."})
    assert AgentVersion.objects.get(pk=version.pk).system_prompt == "Fixed."


def test_texts_in_differences_are_escaped(editor: Client) -> None:
    agent = make_agent(system_prompt="<script>alert(1)</script>", name="<i>Name</i>", note="<u>n</u>")
    make_version(agent, published=False, system_prompt="<img src=x onerror=alert(1)>")
    for page in ("publish", "versions", "change", "settings"):
        text = editor.get(address(agent, page)).content.decode()
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "<i>Name" not in text
