"""System checks of what is configured in the database: providers and agents.

    agents.W001   a provider in use takes its key from a variable that is not set
    agents.W002   a provider's stored key cannot be read
    agents.I003   an active agent has no published version, so it answers nobody
    agents.W004   there is no default provider, and an agent relies on one
    agents.W005   the demo model is the default outside development
    agents.W006   the default provider cannot be reached

They read the database, so they run where Django checks databases: `manage.py check --database default`, and before `migrate`.
W006 opens a network connection and runs with `check --deploy --database default` and in `manage.py setup` only: a server
must start while a provider is down. None of them ever stops a migration: they are warnings.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Info, Tags, Warning, register
from django.db import DatabaseError, connections
from django.db.models import Q

from .models import Agent, AgentVersion, Provider, VersionFallback
from .providers.keys import UnreadableKey, key_of
from .versions.publishing import default_provider

REACHABLE_WITHIN_S: Final = 2.0
Apps = Sequence[AppConfig] | None

_NEEDED: Final = {
    (model._meta.db_table, field.column)
    for model in (Agent, AgentVersion, Provider, VersionFallback)
    for field in model._meta.concrete_fields
}
_COLUMNS: Final = """
    SELECT asked.name, attname FROM unnest(%s::text[]) AS asked (name)
    JOIN pg_attribute ON attrelid = to_regclass(asked.name) AND attnum > 0
"""


@register(Tags.database)
def check_providers(app_configs: Apps = None, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Report keys that are missing or unreadable, and a default provider that is missing or only a demo."""
    if not _is_readable(databases):
        return []
    messages = [message for provider in _providers_in_use() for message in _key_problems(provider)]
    default = default_provider()
    if default is None and _relies_on_default():
        messages.append(
            Warning(
                "There is no default provider.",
                hint="Mark one as the default in the admin, or set OPENAI_API_KEY and run `manage.py setup`.",
                id="agents.W004",
            )
        )
    if default is not None and default.is_demo and settings.ENVIRONMENT_NAME != "development":
        messages.append(
            Warning(
                "The built-in demo model answers for agents that name no provider; its answers are poor.",
                hint="Set OPENAI_API_KEY (or OPENAI_BASE_URL and DEFAULT_CHAT_MODEL), then run `manage.py setup`.",
                id="agents.W005",
            )
        )
    return messages


@register(Tags.database)
def check_agents(app_configs: Apps = None, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Report active agents that have no published version."""
    if not _is_readable(databases):
        return []
    slugs = Agent.objects.filter(is_active=True, live_version=None).values_list("slug", flat=True)
    return [
        Info(
            f"The agent {slug} has no published version, so it answers nobody.",
            hint="Publish its draft in the admin, or switch it off.",
            id="agents.I003",
        )
        for slug in slugs
    ]


@register(Tags.database, deploy=True)
def check_reachable(app_configs: Apps = None, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a default provider to which no connection can be opened within two seconds."""
    provider = default_provider() if _is_readable(databases) else None
    if provider is None or not (reason := why_unreachable(provider)):
        return []
    return [
        Warning(
            f"The default provider {provider.slug} cannot be reached at {provider.base_url}: {reason}.",
            hint="Check its address in the admin, and that this machine may open connections to it.",
            id="agents.W006",
        )
    ]


def why_unreachable(provider: Provider) -> str:
    """Return why no TCP connection to the provider can be opened, or "" if one can."""
    parts = urlsplit(provider.base_url)
    address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    try:
        with closing(socket.create_connection(address, timeout=REACHABLE_WITHIN_S)):
            return ""
    except TimeoutError:
        return f"no answer within {REACHABLE_WITHIN_S:g} seconds"
    except OSError as error:
        return error.strerror or str(error)


def _key_problems(provider: Provider) -> list[CheckMessage]:
    try:
        key = key_of(provider)
    except UnreadableKey as error:
        return [Warning(error.detail, hint=f"Open the provider {provider.slug} in the admin.", id="agents.W002")]
    if provider.key_variable and not key:
        return [
            Warning(
                f"{provider.key_variable}, the key of the provider {provider.slug}, is not set.",
                hint="Set it in the environment and restart, or store a key in the admin instead.",
                id="agents.W001",
            )
        ]
    return []


def _providers_in_use() -> list[Provider]:
    """Return the default provider and those that live versions name; unused ones may be incomplete."""
    live = Agent.objects.filter(is_active=True).exclude(live_version=None).values("live_version")
    named = AgentVersion.objects.filter(pk__in=live).values("provider")
    background = AgentVersion.objects.filter(pk__in=live).values("summary_provider")
    cheaper = AgentVersion.objects.filter(pk__in=live).values("simple_provider")
    classifying = AgentVersion.objects.filter(pk__in=live, classifier_enabled=True).values("classifier_provider")
    fallbacks = VersionFallback.objects.filter(version__in=live).values("provider")
    used = Q(pk__in=named) | Q(pk__in=cheaper) | Q(pk__in=classifying) | Q(pk__in=background) | Q(pk__in=fallbacks)
    return list(Provider.objects.filter(Q(is_default=True) | used))


def _relies_on_default() -> bool:
    live = Agent.objects.filter(is_active=True).exclude(live_version=None).values("live_version")
    return (
        AgentVersion.objects.filter(pk__in=live, provider=None).exists()
        or VersionFallback.objects.filter(version__in=live, provider=None).exists()
    )


def _is_readable(databases: Sequence[str] | None) -> bool:
    """Tell whether this run checks the database, and the columns exist: `migrate` checks before it has made them."""
    if "default" not in (databases or ()):
        return False
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute(_COLUMNS, [[table for table, _ in _NEEDED]])
            return set(cursor.fetchall()) >= _NEEDED
    except DatabaseError:
        # A database that is down has checks of its own.
        return False
