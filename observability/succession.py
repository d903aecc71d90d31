"""A key that takes another's place takes over what limits it: else whoever rotates a key would lift its budgets."""

from __future__ import annotations

from datetime import datetime

from observability.models import Budget, BudgetPeriod, Limit, LimitScope


def hand_on_limits(old: str, *, to: str, at: datetime) -> None:
    """Give the API key with the public id `to` budgets and limits like those of `old`, with as much spent already.

    From then on each key spends from its own, and the old one's end with it. Runs inside a transaction that the caller began.
    """
    for budget in Budget.objects.filter(key=old).order_by("pk"):
        periods = list(BudgetPeriod.objects.filter(budget=budget, starts_at__lte=at, ends_at__gt=at))
        ending = f" ({to})"
        budget.pk, budget.key, budget.name = None, to, budget.name.removesuffix(f" ({old})")[: 100 - len(ending)] + ending
        budget.save(force_insert=True)
        for period in periods:
            # What calls under way turn out to cost is the old key's; counted here as promised, it holds however they end.
            period.spent_usd += period.reserved_usd
            period.spent_tokens += period.reserved_tokens
            period.pk, period.budget, period.refused_at = None, budget, None
            period.reserved_usd, period.reserved_tokens = period.reserved_usd * 0, 0
        BudgetPeriod.objects.bulk_create(periods)
    for limit in Limit.objects.filter(scope=LimitScope.KEY, name=old):
        limit.pk, limit.name = None, to
        limit.save(force_insert=True)
