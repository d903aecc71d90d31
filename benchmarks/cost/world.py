"""Agents with prices, limits, budgets and a cache, in a fresh database: `python -m benchmarks.cost.world BASE_URL`.

Run in a process of its own, so that the benchmark itself needs no Django.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any, Final

PROTECTED: Final = "protected"
RACING: Final = "racing"
# Dollars per million tokens, so high that one call of 70 tokens costs 7 cents.
USD_PER_MILLION: Final = 1000
RACE_USD: Final = Decimal(1)
_PLENTY: Final = 1_000_000_000


def make_world() -> None:
    """Make what `fresh_storage` does not: its provider is there already."""
    from datetime import UTC, datetime

    from agents.models import Provider
    from observability.models import Budget, Limit, ModelPrice

    price = Decimal(USD_PER_MILLION)
    provider = Provider.objects.get(slug="bench")
    ModelPrice.objects.create(
        provider=provider.slug,
        model=provider.default_model,
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
        input_usd=price,
        output_usd=price,
    )
    for scope in ("address", "session", "key", "agent"):
        Limit.objects.create(scope=scope, requests_per_minute=_PLENTY, tokens_per_minute=_PLENTY, concurrent=_PLENTY)
    Budget.objects.create(name="everything", limit_usd=_PLENTY, limit_tokens=_PLENTY * 1000)
    Budget.objects.create(name="one agent", scope="agent", agent=PROTECTED, limit_usd=_PLENTY)
    Budget.objects.create(name="race", scope="agent", agent=RACING, limit_usd=RACE_USD)
    _make_agent(PROTECTED, provider=provider, reply_cache_s=3600)
    # Its worst case is 32 cents: four may run at once on a dollar, and what they give back goes to others.
    _make_agent(RACING, provider=provider, reply_cache_s=0, prompt_budget_tokens=256, max_output_tokens=64)


def _make_agent(slug: str, **fields: Any) -> None:
    from agents.versions.drafts import create_agent
    from agents.versions.publishing import publish

    agent = create_agent(slug=slug, name=slug.title(), author=None, system_prompt="You are a benchmark. Answer as you always do.", **fields)
    publish(agent.versions.get(), actor=None)


if __name__ == "__main__":
    import django

    django.setup()
    make_world()
    sys.exit()
