"""Providers: keys go in and never come out; one default; what the environment decides is not editable."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from agents.models import Provider
from agents.providers.keys import key_of, seal
from observability.api import breaker_closed, breaker_opened
from tests.factories import make_agent, make_provider, make_user, unique
from tests.waiting import eventually

LIST = "/admin/agents/provider/"
CANARY = "sk-canary-4f7d1c"


@pytest.fixture
def operator(sign_in: Callable[..., Client]) -> Client:
    return sign_in("operator")


def fields(**changed: Any) -> dict[str, Any]:
    return {
        "slug": "vendor", "base_url": "https://api.vendor.example/v1", "default_model": "m", "key_variable": "", "key": "",
        "connect_timeout_s": 5, "first_token_timeout_s": 30, "between_tokens_timeout_s": 20, "total_timeout_s": 120, **changed,
    }  # fmt: skip


def test_adding_a_provider_stores_its_key_encrypted(operator: Client) -> None:
    assert operator.post(f"{LIST}add/", fields(key=CANARY)).status_code == 302
    provider = Provider.objects.get(slug="vendor")
    assert key_of(provider) == CANARY
    assert CANARY not in provider.encrypted_key


def test_no_page_shows_a_key(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_API_KEY", CANARY)
    stored, named = make_provider(encrypted_key=seal(CANARY)), make_provider(key_variable="VENDOR_API_KEY")
    for path in (LIST, f"{LIST}{stored.pk}/change/", f"{LIST}{named.pk}/change/", f"{LIST}{stored.pk}/history/", "/admin/"):
        text = operator.get(path).content.decode()
        assert CANARY not in text
        assert stored.encrypted_key not in text
    text = operator.get(LIST).content.decode()
    assert "the variable is set" in text
    assert "stored here, encrypted" in text


def test_a_refused_form_does_not_repeat_the_key(operator: Client) -> None:
    response = operator.post(f"{LIST}add/", fields(slug="Not A Name", key=CANARY))
    assert response.status_code == 200
    assert CANARY not in response.content.decode()


def test_an_empty_key_keeps_the_stored_one(operator: Client) -> None:
    provider = make_provider(slug="vendor", base_url="https://api.vendor.example/v1", encrypted_key=seal(CANARY))
    assert operator.post(f"{LIST}{provider.pk}/change/", fields(default_model="other")).status_code == 302
    provider.refresh_from_db()
    assert (provider.default_model, key_of(provider)) == ("other", CANARY)


def test_a_new_address_demands_the_key_again(operator: Client) -> None:
    provider = make_provider(slug="vendor", base_url="https://api.vendor.example/v1", encrypted_key=seal(CANARY))
    page = f"{LIST}{provider.pk}/change/"
    response = operator.post(page, fields(base_url="https://elsewhere.example/v1"))
    assert response.status_code == 200
    assert "enter the key again" in response.content.decode()
    provider.refresh_from_db()
    assert provider.base_url == "https://api.vendor.example/v1"
    assert operator.post(page, fields(base_url="https://elsewhere.example/v1", key="sk-new")).status_code == 302
    provider.refresh_from_db()
    assert key_of(provider) == "sk-new"


def test_forgetting_the_key(operator: Client) -> None:
    provider = make_provider(slug="vendor", base_url="https://api.vendor.example/v1", encrypted_key=seal(CANARY))
    operator.post(f"{LIST}{provider.pk}/change/", fields(forget_key="on"))
    provider.refresh_from_db()
    assert provider.encrypted_key == ""


def test_a_variables_key_is_not_sent_to_a_new_address_unproven(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_API_KEY", CANARY)
    assert operator.post(f"{LIST}add/", fields(key_variable="VENDOR_API_KEY")).status_code == 200
    assert not Provider.objects.exists()
    assert operator.post(f"{LIST}add/", fields(key_variable="VENDOR_API_KEY", key=CANARY)).status_code == 302
    assert Provider.objects.get().encrypted_key == ""


@pytest.mark.parametrize("variable", ["SECRET_KEY", "DATABASE_URL", "lower_api_key", "A B_API_KEY"])
def test_other_variables_are_refused(variable: str, operator: Client) -> None:
    assert operator.post(f"{LIST}add/", fields(key_variable=variable)).status_code == 200
    assert not Provider.objects.exists()


def test_choosing_another_default_takes_the_mark_from_the_first(operator: Client) -> None:
    first = make_provider(is_default=True)
    second = make_provider(slug="vendor", base_url="https://api.vendor.example/v1")
    assert operator.post(f"{LIST}{second.pk}/change/", fields(is_default="on")).status_code == 302
    assert list(Provider.objects.filter(is_default=True)) == [second]
    operator.post(LIST, {"action": "make_default", "_selected_action": [first.pk]})
    assert list(Provider.objects.filter(is_default=True)) == [first]
    response = operator.post(LIST, {"action": "make_default", "_selected_action": [first.pk, second.pk]}, follow=True)
    assert "exactly one provider" in response.content.decode()


def test_there_is_always_a_default(operator: Client) -> None:
    provider = make_provider(slug="vendor", base_url="https://api.vendor.example/v1", is_default=True)
    response = operator.post(f"{LIST}{provider.pk}/change/", fields())
    assert "There is always one default" in response.content.decode()
    assert Provider.objects.get(is_default=True) == provider


@pytest.mark.parametrize("kept", [{"from_environment": True}, {"is_demo": True}])
def test_what_the_environment_decides_is_read_only_but_for_timeouts(kept: dict[str, bool], operator: Client) -> None:
    provider = make_provider(slug="kept", is_default=True, **kept)
    page = f"{LIST}{provider.pk}/change/"
    assert 'name="base_url"' not in operator.get(page).content.decode()
    operator.post(page, fields(slug="taken-over", base_url="https://elsewhere.example/v1", key="sk-x", total_timeout_s=77))
    after = Provider.objects.get(pk=provider.pk)
    assert (after.slug, after.base_url, after.encrypted_key, after.is_default) == ("kept", provider.base_url, "", True)
    assert after.total_timeout_s == 77


def test_default_and_kept_providers_are_not_deleted(sign_in: Callable[..., Client]) -> None:
    superuser = sign_in("superuser")
    for provider in (make_provider(is_default=True), make_provider(from_environment=True)):
        assert superuser.post(f"{LIST}{provider.pk}/delete/", {"post": "yes"}).status_code == 403
        superuser.post(LIST, {"action": "delete_selected", "_selected_action": [provider.pk], "post": "yes"})
        assert Provider.objects.filter(pk=provider.pk).exists()


def test_providers_in_use_are_not_deleted(sign_in: Callable[..., Client]) -> None:
    provider = make_provider()
    make_agent(provider=provider)
    superuser = sign_in("superuser")
    assert superuser.get(f"{LIST}{provider.pk}/delete/").status_code == 200
    assert superuser.post(f"{LIST}{provider.pk}/delete/", {"post": "yes"}).status_code in (200, 403)
    superuser.post(LIST, {"action": "delete_selected", "_selected_action": [provider.pk], "post": "yes"})
    assert Provider.objects.filter(pk=provider.pk).exists()


def test_a_change_waits_for_a_colleagues_and_never_writes_an_older_key_back(live_db: None) -> None:
    provider = make_provider(slug=unique("vendor"), base_url="https://api.vendor.example/v1", encrypted_key=seal(CANARY))
    operator = Client(headers={"accept": "text/html"})
    operator.force_login(make_user(role="operator"))
    moved = fields(slug=provider.slug, base_url="https://elsewhere.example/v1")

    def post() -> int:
        try:
            return operator.post(f"{LIST}{provider.pk}/change/", moved).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=1) as pool:
        with transaction.atomic():
            # A colleague moves the provider and forgets its key, and has not committed yet.
            Provider.objects.filter(pk=provider.pk).update(base_url=moved["base_url"], encrypted_key="")
            status = pool.submit(post)
            eventually(lambda: status.done() or _somebody_waits(), what="the change waits for the colleague's")
        assert status.result(30) == 302
    provider.refresh_from_db()
    assert (provider.base_url, provider.encrypted_key) == (moved["base_url"], "")


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))")
        return bool(cursor.fetchone()[0])


def test_the_list_cannot_be_asked_what_a_stored_key_looks_like(operator: Client) -> None:
    make_provider(encrypted_key=seal(CANARY))
    assert operator.get(f"{LIST}?encrypted_key__startswith=gAAAA").status_code == 400
    assert operator.get(f"{LIST}?slug__startswith=p").status_code == 200


def test_a_model_that_is_left_alone_shows_until_it_answers_again(operator: Client) -> None:
    provider = make_provider()
    page = f"{LIST}{provider.pk}/change/"
    breaker_opened(provider=provider.slug, model="gpt-6-luna", reason="10 failures in a row")
    assert "left alone: 1 model" in operator.get(LIST).content.decode()
    assert "<strong>gpt-6-luna</strong> is left alone since" in operator.get(page).content.decode()
    breaker_closed(provider=provider.slug, model="gpt-6-luna")
    assert "left alone" not in operator.get(LIST).content.decode()
    assert "left alone" not in operator.get(page).content.decode()
