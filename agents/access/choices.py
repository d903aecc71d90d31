"""Agents and API keys, to be chosen from where what they cost is limited or looked at."""

from __future__ import annotations

from agents.models import Agent, ApiKey


def list_agents() -> list[tuple[str, str]]:
    """Return every agent's address name, and what it is called."""
    return [(slug, f"{name} ({slug})") for slug, name in Agent.objects.order_by("name", "slug").values_list("slug", "name")]


def list_keys() -> list[tuple[str, str]]:
    """Return every key's public id, and what it is called: those that are revoked last."""
    rows = ApiKey.objects.order_by("revoked", "owner__name", "name").values_list("prefix", "owner__name", "name", "revoked")
    return [(prefix, f"{owner}: {name} ({prefix}{', revoked' if revoked else ''})") for prefix, owner, name, revoked in rows]
