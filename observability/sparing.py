"""Budgets of which so much is spent that agents are to answer with their cheaper models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

from django.db.models import F, Q
from django.utils import timezone

from observability.models import Budget, BudgetPeriod, BudgetScope, OnUnknownPrice
from observability.periods import period_of

_MOST_PEOPLE: Final = 20_000


def refuses_unpriced(budgets: Sequence[Budget], *, agent: str, payers: Collection[str]) -> bool:
    """Tell whether one of `budgets` may refuse calls whose price is unknown, of this agent and a key that spends from those of `payers`."""
    return any(
        budget.limit_usd is not None and budget.on_unknown_price == OnUnknownPrice.REFUSE and budget.applies_to(agent, payers=payers)
        for budget in budgets
    )


def list_sparing() -> dict[int, frozenset[int] | None]:
    """Return the ids of budgets that ask for cheaper models now, and of whom: of these people, by number; None: of everybody."""
    now = timezone.now()
    is_reached = Q(spent_usd__gte=F("budget__limit_usd") * F("budget__cheaper_at") / 100) | Q(
        spent_tokens__gte=F("budget__limit_tokens") * F("budget__cheaper_at") / 100
    )
    rows = BudgetPeriod.objects.filter(
        is_reached, budget__is_active=True, budget__cheaper_at__isnull=False, ends_at__gt=now, starts_at__lte=now
    ).select_related("budget")
    budgets: dict[int, Budget] = {}
    people: defaultdict[int, set[int]] = defaultdict(set)
    for row in rows.order_by("-ends_at", "id")[:_MOST_PEOPLE]:
        if period_of(row.budget, now) == (row.starts_at, row.ends_at):
            budgets[row.budget_id] = row.budget
            people[row.budget_id].add(row.subject_id)
    return {id: frozenset(people[id]) if budget.scope == BudgetScope.USER else None for id, budget in budgets.items()}
