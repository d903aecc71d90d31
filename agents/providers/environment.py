"""The provider that the environment describes: OPENAI_API_KEY, OPENAI_BASE_URL and DEFAULT_CHAT_MODEL, or the demo model.

`manage.py setup` brings the rows in step at each start. It writes address, key variable and model, and never the timeouts,
which operators tune. An operator's own default provider stays the default.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction

from agents.models import Provider

OPENAI_URL: Final = "https://api.openai.com/v1"
# OpenAI's small model for chat and other high-volume work (models page and deprecations page, November 2026).
DEFAULT_MODEL: Final = "gpt-6-luna"
DEMO_SLUG: Final = "demo"
# The name that the built-in server gives its one model (chatbot_site/local/demo_model.py).
DEMO_MODEL: Final = "smollm2-135m-instruct (demo)"
KEY_VARIABLE: Final = "OPENAI_API_KEY"


def keep_default_provider() -> Provider | None:
    """Bring the environment's providers in step and return the default provider, or None if there is none."""
    with transaction.atomic():
        wanted = _keep_demo() if settings.DEMO_MODEL_URL else None
        if settings.OPENAI_API_KEY or settings.OPENAI_BASE_URL:
            wanted = _keep_real()
        current = Provider.objects.select_for_update().filter(is_default=True).first()
        if wanted is None or (current is not None and not current.from_environment):
            return current
        if current is not None and current.pk != wanted.pk:
            Provider.objects.filter(pk=current.pk).update(is_default=False)
        Provider.objects.filter(pk=wanted.pk).update(is_default=True)
        wanted.is_default = True
        return wanted


def _keep_real() -> Provider:
    base_url = settings.OPENAI_BASE_URL or OPENAI_URL
    is_openai = urlsplit(base_url).hostname == urlsplit(OPENAI_URL).hostname
    provider = Provider.objects.filter(from_environment=True, is_demo=False).first()
    if provider is None:
        provider = Provider(slug=_free_slug("openai" if is_openai else "environment"), from_environment=True)
    elif provider.base_url != base_url and not settings.DEFAULT_CHAT_MODEL:
        # What the old address served says nothing about the new one.
        provider.default_model = ""
    model = settings.DEFAULT_CHAT_MODEL or provider.default_model or (DEFAULT_MODEL if is_openai else "")
    return _keep(
        provider, base_url=base_url, default_model=model, key_variable=KEY_VARIABLE if settings.OPENAI_API_KEY else "", encrypted_key=""
    )


def _keep_demo() -> Provider:
    provider = Provider.objects.filter(is_demo=True).first()
    if provider is None:
        provider = Provider(slug=_free_slug(DEMO_SLUG), is_demo=True, from_environment=True)
    return _keep(provider, base_url=settings.DEMO_MODEL_URL, default_model=DEMO_MODEL)


def _keep(provider: Provider, **values: Any) -> Provider:
    if provider.pk is None or any(getattr(provider, name) != value for name, value in values.items()):
        for name, value in values.items():
            setattr(provider, name, value)
        provider.save()
    return provider


def _free_slug(slug: str) -> str:
    # An operator may have taken the obvious name for a provider of their own.
    taken = set(Provider.objects.values_list("slug", flat=True))
    return next(name for name in (slug, *(f"{slug}-{number}" for number in range(2, len(taken) + 3))) if name not in taken)
