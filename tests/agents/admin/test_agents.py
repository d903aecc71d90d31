"""The list, creating, settings, deleting, import and export."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from agents.models import Agent
from agents.versions.documents import export_agent
from agents.versions.drafts import draft_of, start_draft
from tests.factories import make_agent, make_provider, make_user, make_version

LIST = "/admin/agents/agent/"
IMPORT = "/admin/agents/agent/import/"


def test_empty_list_says_how_to_begin(editor: Client) -> None:
    text = editor.get(LIST).content.decode()
    assert "Create the first agent" in text
    assert "manage.py setup" in text


def test_list_tells_the_state_at_a_glance(editor: Client) -> None:
    make_provider(slug="the-demo", is_demo=True, is_default=True, default_model="tiny")
    make_agent(slug="answering")
    waiting = make_agent(slug="waiting")
    make_version(waiting, published=False)
    make_agent(slug="fresh", published=False)
    make_agent(slug="resting", is_active=False)
    glances = {agent.slug: agent.glance for agent in editor.get(LIST).context["cl"].result_list}
    labels = {slug: [label.text for label in glance.labels] for slug, glance in glances.items()}
    assert labels == {
        "answering": ["live v1"],
        "waiting": ["live v1", "draft v2 waiting"],
        "fresh": ["never published", "draft v1"],
        "resting": ["switched off", "v1"],
    }
    assert all(glance.is_demo and glance.model == "tiny" for glance in glances.values())
    assert "built-in demo model, not for real answers" in editor.get(LIST).content.decode()


def test_list_needs_no_more_queries_for_more_agents(editor: Client, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    for _ in range(12):
        make_version(make_agent(), published=False)
    with django_assert_max_num_queries(16):
        editor.get(LIST)


def test_creating_an_agent_makes_its_first_draft(editor: Client) -> None:
    given = {"name": "Help desk", "slug": "help-desk", "description": "", "access": "key", "system_prompt": "You help.\r\nAlways."}
    response = editor.post(f"{LIST}add/", given)
    agent = Agent.objects.get(slug="help-desk")
    assert response["Location"] == f"{LIST}{agent.pk}/change/"
    assert (agent.access, agent.live_version, draft_of(agent).system_prompt) == ("key", None, "You help.\nAlways.")


@pytest.mark.parametrize("slug", ["Taken", "taken", "-x", "a b", "x" * 64, ""])
def test_unusable_address_names_are_refused(slug: str, editor: Client) -> None:
    make_agent(slug="taken")
    response = editor.post(f"{LIST}add/", {"name": "N", "slug": slug, "access": "public", "system_prompt": "Kept words."})
    assert response.status_code == 422
    assert "Kept words." in response.content.decode()
    assert Agent.objects.count() == 1


def test_settings_never_change_the_slug(editor: Client) -> None:
    agent = make_agent(slug="stays")
    editor.post(f"{LIST}{agent.pk}/settings/", {"name": "Renamed", "slug": "other", "access": "key"})
    agent.refresh_from_db()
    assert (agent.slug, agent.name, agent.access, agent.is_active) == ("stays", "Renamed", "key", False)


def test_unpublished_agents_can_be_deleted(editor: Client) -> None:
    agent = make_agent(published=False)
    assert editor.get(f"{LIST}{agent.pk}/delete/").status_code == 200
    editor.post(f"{LIST}{agent.pk}/delete/", {"post": "yes"})
    assert not Agent.objects.exists()


@pytest.mark.parametrize("role", ["editor", "superuser"])
def test_published_agents_cannot_be_deleted_and_the_page_says_why(role: str, sign_in: Callable[..., Client]) -> None:
    agent, client = make_agent(), sign_in(role)
    for response in (
        client.get(f"{LIST}{agent.pk}/delete/", follow=True),
        client.post(f"{LIST}{agent.pk}/delete/", {"post": "yes"}, follow=True),
    ):
        assert "Switch it off" in response.content.decode()
    client.post(LIST, {"action": "delete_selected", "_selected_action": [agent.pk], "post": "yes"})
    assert Agent.objects.filter(pk=agent.pk).exists()


def test_export_downloads_the_agents_file(editor: Client) -> None:
    agent = make_agent(slug="one", system_prompt="Be brief.")
    response = editor.get(f"{LIST}{agent.pk}/export/")
    assert response["Content-Disposition"] == 'attachment; filename="one.yaml"'
    assert response.content.decode() == export_agent(agent)


def test_several_agents_export_as_an_archive(editor: Client) -> None:
    agents = [make_agent(slug="one"), make_agent(slug="two")]
    response = editor.post(LIST, {"action": "export_selected", "_selected_action": [agent.pk for agent in agents]})
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {f"{a.slug}.yaml": export_agent(a) for a in agents}


def test_import_shows_first_and_changes_nothing(editor: Client) -> None:
    agent = make_agent(slug="one", system_prompt="Old words.")
    text = export_agent(agent).replace("Old words.", "New words.")
    response = editor.post(IMPORT, {"file": SimpleUploadedFile("one.yaml", text.encode())})
    page = response.content.decode()
    assert response.status_code == 200
    assert "Old words." in page
    assert "New words." in page
    assert draft_of(agent) is None


def test_import_applies_as_a_draft(editor: Client) -> None:
    agent = make_agent(slug="one", system_prompt="Old words.")
    text = export_agent(agent).replace("Old words.", "New words.")
    editor.post(IMPORT, {"text": text, "apply": "1"})
    agent.refresh_from_db()
    assert draft_of(agent).system_prompt == "New words."
    assert agent.live_version.system_prompt == "Old words."


def test_import_never_overwrites_a_colleagues_draft(editor: Client) -> None:
    agent = make_agent(slug="one", system_prompt="Old words.")
    draft = start_draft(agent, author=make_user(role="editor"))
    draft.system_prompt = "Colleague's words."
    draft.save()
    response = editor.post(IMPORT, {"text": export_agent(agent).replace("Old words.", "New words."), "apply": "1"})
    # The file says something else than the colleague's draft.
    assert response.status_code == 422
    assert "Publish or discard that first" in response.content.decode()
    assert draft_of(agent).system_prompt == "Colleague's words."


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"slug: [", b"{}", b"slug: x\nunknown: 1", b"- a\n- b", b"!!python/object:os.system x"]
)
def test_unusable_files_are_refused_in_words(content: bytes, editor: Client) -> None:
    response = editor.post(IMPORT, {"file": SimpleUploadedFile("x.yaml", content)})
    assert response.status_code == 422
    assert "Nothing was changed" in response.content.decode()
    assert not Agent.objects.exists()


@pytest.mark.parametrize(("role", "may_try"), [("editor", True), ("operator", False)])
@pytest.mark.parametrize("path", ["/admin/", "/admin/agents/agent/"])
def test_try_it_is_offered_to_those_who_may(path: str, role: str, may_try: bool, sign_in: Callable[..., Client]) -> None:
    agent = make_agent()
    assert (f"/admin/agents/agent/{agent.pk}/try/" in sign_in(role).get(path).content.decode()) == may_try


@pytest.mark.parametrize(
    "address",
    [
        "/admin/agents/agent/?access__exact=%00",
        "/admin/agents/provider/?slug=%00",
        "/admin/auth/user/?username=%00",
        "/admin/memory/turn/?created_at__year=99999999999",
        "/admin/memory/turn/?state__exact=%00",
        "/admin/memory/conversation/?last_turn_at__year=99999999999",
    ],
)
def test_a_filter_that_no_column_can_hold_shows_the_whole_list(sign_in: Callable[..., Client], address: str) -> None:
    superuser = sign_in("superuser")
    response = superuser.get(address, follow=True)
    assert response.redirect_chain == [(f"{address.partition('?')[0]}?e=1", 302)]
    assert response.status_code == 200


def test_the_search_of_the_admins_theme_is_switched_off(sign_in: Callable[..., Client]) -> None:
    for address in ("/admin/search/", "/admin/search/?s=a", "/admin/search/?s=a&extended=1"):
        assert sign_in("superuser").get(address).status_code == 404
    assert "/admin/search/" not in sign_in("superuser").get("/admin/").content.decode()
