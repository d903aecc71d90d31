"""What a version says: every field that decides how its agent answers, and its fallbacks, as a plain value.

A field added to `AgentVersion` belongs to the content by itself; only those of `BOOKKEEPING` do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from agents.models import AgentVersion, Provider, VersionFallback

BOOKKEEPING: Final = frozenset({"id", "agent", "number", "note", "author", "created_at", "updated_at", "published_at"})
PROVIDERS: Final = ("provider", "simple_provider", "classifier_provider", "summary_provider")
"""The content fields that name a provider."""
MAX_FALLBACKS: Final = 5


def content_fields() -> list[str]:
    """Return the names of the fields that decide how an agent answers, in the model's order."""
    return [field.name for field in AgentVersion._meta.concrete_fields if field.name not in BOOKKEEPING]


@dataclass(frozen=True, slots=True)
class Content:
    """`fields` maps every content field to its value (a provider as its slug, "" where none is named).

    `fallbacks` are (provider slug or "", model or "") in the order in which they are tried.
    """

    fields: dict[str, Any]
    fallbacks: tuple[tuple[str, str], ...]


def content_of(version: AgentVersion) -> Content:
    """Return what `version` says."""
    fields = {name: getattr(version, name) for name in content_fields()}
    for name in PROVIDERS:
        provider: Provider | None = getattr(version, name)
        fields[name] = provider.slug if provider else ""
    rows = version.fallbacks.order_by("position").values_list("provider__slug", "model")
    return Content(fields=fields, fallbacks=tuple((slug or "", model) for slug, model in rows))


def copy_values(version: AgentVersion) -> dict[str, Any]:
    """Return the content fields of `version` as keyword arguments for another one."""
    return {name: getattr(version, name) for name in content_fields()}


def write_fallbacks(version: AgentVersion, *, fallbacks: Iterable[tuple[int | None, str]]) -> None:
    """Replace the fallbacks of the draft `version` by (provider id or None, model), in the order given."""
    version.fallbacks.all().delete()
    VersionFallback.objects.bulk_create(
        VersionFallback(version=version, position=position, provider_id=provider_id, model=model)
        for position, (provider_id, model) in enumerate(fallbacks, start=1)
    )
