"""Which models agents may call: of every version, its fallbacks and its background work."""

from __future__ import annotations

from collections.abc import Iterator

from agents.models import AgentVersion, Provider, VersionFallback
from observability.api import ModelInUse


def list_models_in_use() -> Iterator[ModelInUse]:
    """Return each provider's models that some version, live or not, would ask for."""
    providers = {provider.pk: provider for provider in Provider.objects.all()}
    default = next((provider for provider in providers.values() if provider.is_default), None)
    cheaper = ("simple_provider", "simple_model", "classifier_enabled", "classifier_provider", "classifier_model")
    versions = AgentVersion.objects.order_by().values_list("provider", "model", "summary_provider", "summary_model", *cheaper).distinct()
    wanted = set(VersionFallback.objects.order_by().values_list("provider", "model").distinct())
    for provider, model, summary_provider, summary_model, *cheaper in versions:
        simple_provider, simple_model, asks, classifier_provider, classifier_model = cheaper
        simple = (simple_provider, simple_model) if simple_provider else (provider, simple_model or model)
        wanted |= {(provider, model), simple}
        if asks:
            wanted.add((classifier_provider, classifier_model) if classifier_provider else (simple[0], classifier_model or simple[1]))
        wanted.add((summary_provider, summary_model) if summary_provider else (provider, summary_model or model))
    for id, model in wanted:
        chosen = providers.get(id) if id else default
        if chosen and (name := model or chosen.default_model):
            yield ModelInUse(chosen.slug, name, chosen.base_url, is_free=chosen.is_demo)
