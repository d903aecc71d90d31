"""Budgets of which so much is spent that agents are to answer with their cheaper models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.db.models import F, Q
from django.utils import timezone

from observability.models import Budget, BudgetPeriod, BudgetScope, OnUnknownPrice
from observability.periods import period_of
from observability.succession import with_sharing

_MOST_PEOPLE: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparing:
    """A budget that asks for cheaper models: of an agent ("": any), of keys (None: any), and of whom (None: of everybody)."""

    budget: str
    agent: str
    keys: frozenset[str] | None
    subject_ids: frozenset[int] | None = None


def refuses_unpriced(budgets: Sequence[Budget], *, agent: str, key: str) -> bool:
    """Tell whether one of `budgets` may refuse calls of this agent and key whose price is unknown."""
    return any(
        budget.limit_usd is not None
        and budget.on_unknown_price == OnUnknownPrice.REFUSE
        and budget.agent in ("", agent)
        and budget.is_for_key(key)
        for budget in budgets
    )


def list_sparing() -> list[Sparing]:
    """Return the budgets that ask for cheaper models now."""
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
    with_sharing(budgets.values())
    return [
        Sparing(
            budget=budget.name,
            agent=budget.agent,
            keys=frozenset({budget.key, *budget.sharing}) if budget.key else None,
            subject_ids=frozenset(people[id]) if budget.scope == BudgetScope.USER else None,
        )
        for id, budget in budgets.items()
    ]
