"""Keys: sealed in the database, opened for a call, demanded again when they would go somewhere else."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction

from agents.models import Provider
from agents.providers.changes import apply_key, check_change
from agents.providers.keys import UnreadableKey, key_of, seal
from tests.factories import make_provider

KEY = "sk-canary-0123456789"


def test_a_sealed_key_opens_again(db: None) -> None:
    provider = make_provider(encrypted_key=seal(KEY))
    assert key_of(Provider.objects.get(pk=provider.pk)) == KEY


def test_the_database_never_holds_the_key_itself(db: None) -> None:
    provider = make_provider(encrypted_key=seal(KEY))
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_jsonb(agents_provider)::text FROM agents_provider WHERE id = %s", [provider.pk])
        assert KEY not in cursor.fetchone()[0]
    assert seal(KEY) != seal(KEY), "equal keys do not look equal"


def test_a_provider_without_a_key_has_none(db: None) -> None:
    assert key_of(make_provider()) == ""
    assert seal("") == ""


def test_a_key_survives_the_rotation_of_secret_key(db: None, settings: Any) -> None:
    provider = make_provider(encrypted_key=seal(KEY))
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another-secret-another-secret-another-secret-another"
    assert key_of(provider) == KEY
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(UnreadableKey, match="Enter it again") as caught:
        key_of(provider)
    assert KEY not in str(caught.value)
    assert caught.value.status == 502


@pytest.mark.parametrize("stored", ["rubbish", "gAAAA", "é"])
def test_a_damaged_key_is_explained(db: None, stored: str) -> None:
    with pytest.raises(UnreadableKey, match="cannot be read"):
        key_of(make_provider(encrypted_key=stored))


def test_a_key_comes_from_its_variable(db: None, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    provider = make_provider(key_variable="EXAMPLE_API_KEY")
    assert key_of(provider) == "", "not set"
    settings.PROVIDER_KEYS = {"EXAMPLE_API_KEY": "from-file"}
    assert key_of(provider) == "from-file"
    monkeypatch.setenv("EXAMPLE_API_KEY", f" {KEY}\n")
    assert key_of(provider) == KEY


def test_the_openai_key_comes_from_the_settings_too(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings.OPENAI_API_KEY = KEY
    assert key_of(make_provider(key_variable="OPENAI_API_KEY")) == KEY


@pytest.mark.parametrize("variable", ["SECRET_KEY", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "lower_api_key", "_API_KEY"])
def test_the_servers_own_secrets_are_no_keys(db: None, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "secret")
    provider = make_provider(key_variable=variable)
    with pytest.raises(UnreadableKey, match="_API_KEY"):
        key_of(provider)
    with pytest.raises(ValidationError, match="_API_KEY"):
        provider.clean_fields()


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "sk-é", "x" * 5_000, "nul\0"])
def test_keys_that_no_header_can_carry_are_refused(db: None, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    with pytest.raises(ValueError, match="Copy it again"):
        seal(key)
    with pytest.raises(ValidationError, match="Copy it again"):
        check_change(make_provider(), typed_key=key)
    if "\0" not in key:
        monkeypatch.setenv("EXAMPLE_API_KEY", key)
        with pytest.raises(UnreadableKey, match="Set it again"):
            key_of(make_provider(key_variable="EXAMPLE_API_KEY"))


def test_a_key_has_one_place(db: None) -> None:
    with pytest.raises(IntegrityError, match="provider_key_from_one_place"), transaction.atomic():
        make_provider(key_variable="EXAMPLE_API_KEY", encrypted_key=seal(KEY))


def moved(provider: Provider, **values: Any) -> Provider:
    copy = Provider.objects.get(pk=provider.pk)
    for name, value in ({"base_url": "https://elsewhere.example/v1"} | values).items():
        setattr(copy, name, value)
    return copy


def test_a_new_address_demands_the_stored_key_again(db: None) -> None:
    provider = make_provider(base_url="https://one.example/v1", encrypted_key=seal(KEY))
    for address in ("https://elsewhere.example/v1", "http://one.example/v1", "https://one.example:444/v1", "https://one.example/v2"):
        with pytest.raises(ValidationError) as caught:
            check_change(moved(provider, base_url=address))
        assert list(caught.value.message_dict) == ["key"]
    check_change(moved(provider), typed_key="typed-again")
    check_change(moved(provider), forget=True)
    check_change(moved(provider, base_url="https://one.example/v1/", default_model="other"))


def test_a_typed_key_replaces_and_forgetting_removes(db: None) -> None:
    provider = make_provider(encrypted_key=seal(KEY))
    apply_key(provider)
    assert key_of(provider) == KEY
    apply_key(provider, typed_key="newer")
    assert key_of(provider) == "newer"
    apply_key(provider, forget=True)
    assert provider.encrypted_key == ""
    provider = make_provider(encrypted_key=seal(KEY))
    provider.key_variable = "EXAMPLE_API_KEY"
    apply_key(provider)
    provider.save()


def test_an_environments_key_goes_nowhere_new_without_proof(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = make_provider(base_url="https://one.example/v1", key_variable="EXAMPLE_API_KEY")
    check_change(moved(provider))  # nothing is set, so nothing can leak
    monkeypatch.setenv("EXAMPLE_API_KEY", KEY)
    new = Provider(slug="new", base_url="https://elsewhere.example/v1", key_variable="EXAMPLE_API_KEY")
    switched = moved(make_provider(base_url="https://elsewhere.example/v1"), key_variable="EXAMPLE_API_KEY")
    for change in (moved(provider), new, switched):
        for typed in ("", "guess"):
            with pytest.raises(ValidationError, match="Type the key"):
                check_change(change, typed_key=typed)
        check_change(change, typed_key=KEY)
    check_change(moved(provider, base_url=provider.base_url, default_model="other"))


@pytest.mark.parametrize(
    "address",
    ["http://llama:8080/v1", "http://localhost:11434/v1", "https://api.example.com/v1", "http://[::1]:8000/v1", "http://10.0.0.5/v1"],
)
def test_addresses_of_local_and_public_servers_are_accepted(address: str) -> None:
    Provider(slug="a", base_url=address).clean_fields()


@pytest.mark.parametrize(
    "address",
    [
        "api.example.com/v1",
        "ftp://example.com",
        "https://",
        "https://user:secret@example.com/v1",
        "https://example.com/v1?key=1",
        "https://example.com/#a",
        "http://[::1",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com/\n",
    ],
)
def test_unusable_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Provider(slug="a", base_url=address).clean_fields()
    assert list(caught.value.message_dict) == ["base_url"]
