"""API keys in the admin: made with their secret shown once, changed, rotated, revoked; and never shown again."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from agents.access.issuing import revoke_key
from agents.access.keyring import load_keys
from agents.models import ApiKey, KeyOwner
from tests.factories import make_agent, make_key, make_key_owner, make_version

LIST = "/admin/agents/apikey/"
OWNERS = "/admin/agents/keyowner/"


@pytest.fixture
def operator(sign_in: Callable[..., Client]) -> Client:
    return sign_in("operator")


def fields(owner: KeyOwner, **changed: Any) -> dict[str, Any]:
    return {"name": "Web shop", "owner": owner.pk, "scopes": ["chat"], "agents": [], "expiry_date_0": "", "expiry_date_1": "", **changed}


def secret_on(response: HttpResponse) -> str:
    assert response.status_code == 200, response
    assert "no-store" in response["Cache-Control"]
    found = re.search(r"data-secret>([^<]+)<", response.content.decode())
    assert found is not None, response.content.decode()
    return found[1]


def test_a_new_key_is_shown_once_with_a_command_that_uses_it(operator: Client) -> None:
    owner, agent = make_key_owner(), make_agent()
    response = operator.post(f"{LIST}add/", fields(owner, agents=[agent.pk], scopes=["chat", "erase"]))
    secret = secret_on(response)
    key = ApiKey.objects.get()
    assert (key.name, key.owner, key.scopes, list(key.agents.all()), key.all_agents) == (
        "Web shop",
        owner,
        ["chat", "erase"],
        [agent],
        False,
    )
    assert key.author is not None
    assert key.is_valid(secret)
    assert secret.startswith(f"{key.prefix}.")
    text = html.unescape(response.content.decode())
    assert f"curl -X POST http://testserver/api/chat/{agent.slug}" in text
    assert f"Authorization: Bearer {secret}" in text


def test_no_page_shows_a_secret_or_its_hash_again(operator: Client) -> None:
    issued = make_key(make_agent())
    for page in (LIST, f"{LIST}{issued.key.pk}/change/", f"{LIST}{issued.key.pk}/history/", f"{LIST}{issued.key.pk}/rotate/", "/admin/"):
        text = operator.get(page).content.decode()
        assert issued.secret not in text
        assert issued.key.hashed_key not in text
        assert issued.key.hashed_key[-32:] not in text
    secret = secret_on(operator.post(f"{LIST}{issued.key.pk}/rotate/", {"overlap": "1d"}))
    assert not any(secret in str(entry.__dict__) for entry in LogEntry.objects.all())


def test_the_list_cannot_be_filtered_by_the_hash(operator: Client) -> None:
    make_key(name="a key to find")
    for lookup in ("hashed_key__startswith", "successor__hashed_key__startswith"):
        response = operator.get(f"{LIST}?{lookup}=sha", follow=True)
        assert response.status_code in (200, 400)
        assert "a key to find" not in response.content.decode() or response.redirect_chain


def test_a_refused_form_keeps_what_was_typed_and_makes_no_key(operator: Client) -> None:
    owner = make_key_owner()
    yesterday = timezone.now() - timedelta(days=1)
    typed = fields(owner, name="My half-typed key", scopes=["erase"], expiry_date_0=f"{yesterday:%Y-%m-%d}", expiry_date_1="12:00:00")
    response = operator.post(f"{LIST}add/", typed)
    assert response.status_code == 200
    text = response.content.decode()
    assert "Choose a time to come" in text
    assert "My half-typed key" in text
    assert re.search(r'value="erase"[^>]*checked', text)
    assert not ApiKey.objects.exists()
    assert operator.post(f"{LIST}add/", fields(owner, scopes=["everything"])).status_code == 200
    assert not ApiKey.objects.exists()


def test_a_key_without_scopes_or_agents_is_made_and_opens_nothing(operator: Client) -> None:
    response = operator.post(f"{LIST}add/", fields(make_key_owner(), scopes=[]))
    assert "curl" not in response.content.decode()
    key = ApiKey.objects.get()
    caller = load_keys([key.prefix])[key.prefix].caller
    assert (caller.scopes, caller.agents, caller.all_agents) == (set(), set(), False)


def test_what_a_key_opens_can_change_but_not_whose_it_is(operator: Client) -> None:
    key, other, agent = make_key().key, make_key_owner(), make_agent()
    page = f"{LIST}{key.pk}/change/"
    assert operator.post(page, fields(other, name="Renamed", scopes=["usage"], agents=[agent.pk])).status_code == 302
    changed = ApiKey.objects.get(pk=key.pk)
    assert (changed.name, changed.scopes, changed.owner, list(changed.agents.all())) == ("Renamed", ["usage"], key.owner, [agent])
    assert changed.hashed_key == key.hashed_key


def test_revoking_is_asked_about_and_final(operator: Client) -> None:
    key = make_key().key
    page = f"{LIST}{key.pk}/revoke/"
    assert "cannot be undone" in operator.get(page).content.decode()
    assert not ApiKey.objects.get().revoked
    assert "is revoked" in operator.post(page, follow=True).content.decode()
    assert ApiKey.objects.get().revoked
    operator.post(f"{LIST}{key.pk}/change/", fields(key.owner, name="Back again", scopes=["chat", "erase"]))
    kept = ApiKey.objects.get()
    assert (kept.name, kept.scopes, kept.revoked) == (key.name, key.scopes, True)


def test_rotating_shows_the_successor_once_and_says_how_long_the_old_key_goes_on(operator: Client) -> None:
    agent = make_agent()
    old = make_key(agent, scopes=("chat", "erase")).key
    secret = secret_on(operator.post(f"{LIST}{old.pk}/rotate/", {"overlap": "7d"}))
    new = ApiKey.objects.get(replaces=old)
    assert new.is_valid(secret)
    assert (new.scopes, list(new.agents.all()), new.owner, new.expiry_date) == (old.scopes, [agent], old.owner, None)
    old.refresh_from_db()
    assert abs(old.expiry_date - timezone.now() - timedelta(days=7)) < timedelta(minutes=1)
    for overlap in ("7d", "forever"):
        operator.post(f"{LIST}{old.pk}/rotate/", {"overlap": overlap})
    assert ApiKey.objects.count() == 2
    assert f"{new.prefix}" in operator.get(f"{LIST}{old.pk}/change/").content.decode()


def test_a_revoked_key_is_not_rotated(operator: Client) -> None:
    key = make_key().key
    revoke_key(key)
    response = operator.post(f"{LIST}{key.pk}/rotate/", {"overlap": "1d"}, follow=True)
    assert "revoked or expired" in response.content.decode()
    assert ApiKey.objects.count() == 1


def test_an_owner_with_keys_stays(sign_in: Callable[..., Client]) -> None:
    owner = make_key().key.owner
    sign_in("superuser").post(f"{OWNERS}{owner.pk}/delete/", {"post": "yes"})
    assert KeyOwner.objects.filter(pk=owner.pk).exists()


def test_owners_are_made_by_operators(operator: Client) -> None:
    assert operator.post(f"{OWNERS}add/", {"name": "Web shop", "slug": "web-shop"}).status_code == 302
    response = operator.post(f"{OWNERS}add/", {"name": "Another", "slug": "web-shop"})
    assert "already exists" in response.content.decode()
    assert "Another" in response.content.decode()


@pytest.mark.parametrize("role", [None, "", "editor"])
def test_nobody_else_makes_or_ends_keys(role: str | None, sign_in: Callable[..., Client]) -> None:
    client, key = sign_in(role), make_key().key
    for page, body in (("add/", fields(key.owner)), (f"{key.pk}/rotate/", {"overlap": "1d"}), (f"{key.pk}/revoke/", {})):
        response = client.post(f"{LIST}{page}", body)
        assert response.status_code == 403 or "/login/" in response["Location"], page
    assert ApiKey.objects.count() == 1
    assert not ApiKey.objects.get().revoked


def test_keys_that_are_not_there(operator: Client) -> None:
    for page in ("rotate", "revoke"):
        assert operator.get(f"{LIST}999999/{page}/").status_code == 404
    assert operator.get(f"{LIST}999999/change/").status_code == 302


def test_the_example_names_an_agent_that_answers(operator: Client) -> None:
    draft, live = make_agent(slug="a-draft", published=False), make_agent(slug="b-live")
    make_version(live)
    text = operator.post(f"{LIST}add/", fields(make_key_owner(), agents=[draft.pk, live.pk])).content.decode()
    assert "/api/chat/b-live" in text
    assert "/api/chat/a-draft" not in text


def test_a_keys_budgets_are_on_its_page_and_one_click_away(operator: Client) -> None:
    key = make_key(owner=make_key_owner(name="Web shop"), name="production & more").key
    page = html.unescape(operator.get(f"{LIST}{key.pk}/change/").content.decode())
    assert "This key has no budget of its own" in page
    [link] = re.findall(r'href="([^"]+budget/add/[^"]+)"', page)
    form = html.unescape(operator.get(link).content.decode())
    assert 'value="Web shop: production & more"' in form
    assert f'<option value="{key.prefix}" selected>' in form
    assert '<option value="key" selected>' in form
    assert "No alert tells anybody when it is nearly spent: there is no alert target." in form

    sent = {"name": "Shop", "is_active": "on", "scope": "key", "key": key.prefix, "agent": "", "period": "month", "time_zone": "UTC"}
    made = operator.post(link, {**sent, "limit_usd": "5", "limit_tokens": "", "on_unknown_price": "refuse", "cheaper_at": ""})
    assert made.status_code == 302, made.content.decode()
    page = operator.get(f"{LIST}{key.pk}/change/").content.decode()
    assert "0.00 USD of 5.00 USD" in page
    assert "This key has no budget of its own" not in page


def test_no_budget_is_offered_for_a_key_that_ended(operator: Client) -> None:
    key = make_key().key
    revoke_key(key)
    assert "budget/add/" not in operator.get(f"{LIST}{key.pk}/change/").content.decode()


def test_the_list_says_when_a_key_was_used_and_when_it_ends(operator: Client) -> None:
    make_key(expires_at=datetime(2031, 2, 3, 4, 5, tzinfo=UTC))
    page = operator.get(LIST).content.decode()
    assert "03 Feb 2031, 04:05" in page
    assert "never" in page
