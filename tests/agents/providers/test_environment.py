"""The provider that the environment describes, kept in step at each set-up."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Provider
from agents.providers.environment import DEFAULT_MODEL, OPENAI_URL, keep_default_provider
from tests.factories import make_provider

DEMO = "http://127.0.0.1:9999/v1"


@pytest.fixture(autouse=True)
def nothing_set(db: None, settings: Any) -> None:
    Provider.objects.update(is_default=False, from_environment=False, is_demo=False)
    settings.OPENAI_API_KEY = settings.OPENAI_BASE_URL = settings.DEFAULT_CHAT_MODEL = settings.DEMO_MODEL_URL = ""


def row(provider: Provider | None) -> tuple[str, str, str, bool]:
    assert provider is not None
    provider = Provider.objects.get(pk=provider.pk)
    return provider.base_url, provider.default_model, provider.key_variable, provider.is_default


def test_nothing_set_makes_nothing() -> None:
    assert keep_default_provider() is None


def test_a_key_alone_is_openais(settings: Any) -> None:
    settings.OPENAI_API_KEY = "sk-x"
    assert row(keep_default_provider()) == (OPENAI_URL, DEFAULT_MODEL, "OPENAI_API_KEY", True)


def test_an_address_alone_is_a_local_server_that_needs_no_key(settings: Any) -> None:
    settings.OPENAI_BASE_URL, settings.DEFAULT_CHAT_MODEL = "http://127.0.0.1:8080/v1", "llama"
    assert row(keep_default_provider()) == ("http://127.0.0.1:8080/v1", "llama", "", True)


def test_a_strange_server_gets_no_guessed_model(settings: Any) -> None:
    settings.OPENAI_BASE_URL = "http://127.0.0.1:8080/v1"
    assert row(keep_default_provider())[1] == ""


def test_repeating_changes_nothing(settings: Any) -> None:
    settings.OPENAI_API_KEY = "sk-x"
    first = keep_default_provider()
    assert first is not None
    stamp = Provider.objects.get(pk=first.pk).updated_at
    again = keep_default_provider()
    assert again == first
    assert Provider.objects.get(pk=first.pk).updated_at == stamp


def test_the_environment_wins_and_timeouts_stay(settings: Any) -> None:
    settings.OPENAI_API_KEY, settings.DEFAULT_CHAT_MODEL = "sk-x", "one"
    provider = keep_default_provider()
    assert provider is not None
    Provider.objects.filter(pk=provider.pk).update(total_timeout_s=7, connect_timeout_s=2)
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL, settings.DEFAULT_CHAT_MODEL = "", "http://127.0.0.1:1/v1", "two"
    assert row(keep_default_provider()) == ("http://127.0.0.1:1/v1", "two", "", True)
    provider.refresh_from_db()
    assert (provider.total_timeout_s, provider.connect_timeout_s) == (7, 2)


def test_an_operators_model_stays_until_the_environment_names_one(settings: Any) -> None:
    settings.OPENAI_API_KEY = "sk-x"
    provider = keep_default_provider()
    assert provider is not None
    Provider.objects.filter(pk=provider.pk).update(default_model="chosen")
    assert row(keep_default_provider())[1] == "chosen"
    settings.OPENAI_BASE_URL = "http://127.0.0.1:1/v1"
    assert row(keep_default_provider())[1] == "", "another server does not have it"


def test_demo_to_real_and_back(settings: Any) -> None:
    settings.DEMO_MODEL_URL = DEMO
    demo = keep_default_provider()
    assert row(demo)[0] == DEMO
    assert demo is not None
    assert demo.is_demo
    settings.OPENAI_API_KEY, settings.DEMO_MODEL_URL = "sk-x", ""
    real = keep_default_provider()
    assert real is not None
    assert not real.is_demo
    assert row(real)[3]
    assert not row(demo)[3], "kept, but not the default"
    settings.OPENAI_API_KEY, settings.DEMO_MODEL_URL = "", "http://127.0.0.1:1234/v1"
    assert keep_default_provider() == demo
    assert row(demo)[0] == "http://127.0.0.1:1234/v1"
    assert not row(real)[3]


def test_an_operators_own_default_stays(settings: Any) -> None:
    own = make_provider(is_default=True)
    settings.OPENAI_API_KEY, settings.DEMO_MODEL_URL = "sk-x", DEMO
    assert keep_default_provider() == own
    assert Provider.objects.filter(is_default=True).get() == own


def test_a_name_that_is_taken_is_left_to_its_owner(settings: Any) -> None:
    theirs, _ = Provider.objects.get_or_create(slug="openai", defaults={"base_url": "https://own.example/v1"})
    settings.OPENAI_API_KEY = "sk-x"
    provider = keep_default_provider()
    assert provider is not None
    assert provider.slug.startswith("openai-")
    theirs.refresh_from_db()
    assert not theirs.from_environment
