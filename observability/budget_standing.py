"""How a budget stands: what is spent, promised and left in a period."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.db.models import Count

from observability.models import Budget, BudgetPeriod, BudgetScope
from observability.money import usd
from observability.periods import period_of
from observability.succession import payers_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One sum of a budget, in words and as parts of 100."""

    spent: str
    promised: str
    left: str
    limit: str
    percent: int
    spent_width: float
    promised_width: float

    @property
    def label(self) -> str:
        return "off" if self.percent >= 100 else "draft" if self.percent >= 80 else "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStanding:
    """How a budget stands in a period, which begins and resets at moments in the budget's time zone.

    Attributes:
        whose: of a budget for each end user, whose it is.
        is_refusing: a call was refused, because what is left does not cover it.
        people: how many have spent from it, of a budget for each end user.
    """

    bars: Sequence[Bar]
    resets: str
    begins: str
    whose: str = ""
    is_refusing: bool = False
    people: int = 0


def standings(budgets: Sequence[Budget], *, at: datetime | None = None) -> dict[int, BudgetStanding]:
    """Return how each budget stands now, by id; of a budget for each end user: the one who has spent most."""
    now = at or datetime.now(UTC)
    periods = BudgetPeriod.objects.filter(budget__in=budgets, starts_at__lte=now, ends_at__gt=now)
    furthest = periods.order_by("budget_id", "-spent_usd", "-spent_tokens").distinct("budget_id")
    current = {period.budget_id: period for period in furthest}
    people = dict(periods.order_by().values_list("budget_id").annotate(Count("id")))
    found = {}
    for budget in budgets:
        starts_at, ends_at = period_of(budget, now)
        period = current.get(budget.pk) or BudgetPeriod(budget=budget, starts_at=starts_at, ends_at=ends_at)
        found[budget.pk] = standing_in(budget, period, people=people.get(budget.pk, 0))
    return found


def budgets_of_key(key: str) -> list[tuple[Budget, BudgetStanding]]:
    """Return the budgets that the API key whose public id is `key` spends from, and how each stands now."""
    budgets = list(Budget.objects.filter(scope=BudgetScope.KEY, key__in=payers_of([key])[key]).order_by("name"))
    found = standings(budgets)
    return [(budget, found[budget.pk]) for budget in budgets]


def standing_in(budget: Budget, period: BudgetPeriod, *, people: int = 0) -> BudgetStanding:
    """Return how `budget` stood or stands in `period`. `people`: how many have such a period of their own."""
    is_for_each = budget.scope == BudgetScope.USER
    bars = []
    if budget.limit_usd is not None:
        bars.append(_bar(period.spent_usd, period.reserved_usd, budget.limit_usd, usd))
    if budget.limit_tokens is not None:
        bars.append(_bar(Decimal(period.spent_tokens), Decimal(period.reserved_tokens), Decimal(budget.limit_tokens), _tokens))
    return BudgetStanding(
        bars=bars,
        begins=_shown(budget, period.starts_at),
        resets=_shown(budget, period.ends_at),
        whose=f"person #{period.subject_id}" if is_for_each and period.subject_id else "",
        is_refusing=period.refused_at is not None and period.refused_at >= budget.updated_at,
        people=people if is_for_each else 0,
    )


def _bar(spent: Decimal, promised: Decimal, limit: Decimal, words: Callable[[Decimal], str]) -> Bar:
    whole = limit or Decimal(1)  # of nothing, everything is spent
    spent_width = min(Decimal(100), spent * 100 / whole) if limit else Decimal(100)
    return Bar(
        spent=words(spent),
        promised=words(promised) if promised else "",
        left=words(max(Decimal(0), limit - spent - promised)),
        limit=words(limit),
        percent=int(spent * 100 / whole) if limit else 100,
        spent_width=float(round(spent_width, 2)),
        promised_width=float(round(min(100 - spent_width, promised * 100 / whole), 2)),
    )


def _tokens(tokens: Decimal) -> str:
    return f"{int(tokens):,} tokens"


def _shown(budget: Budget, moment: datetime) -> str:
    return f"{moment.astimezone(ZoneInfo(budget.time_zone)):%d %b %Y, %H:%M}"


def fullest_budgets(*, limit: int) -> list[tuple[Budget, BudgetStanding]]:
    """Return the active budgets of which most is spent, that one first, and how each stands."""
    budgets = list(Budget.objects.filter(is_active=True))
    now = standings(budgets)
    return sorted(((budget, now[budget.pk]) for budget in budgets), key=lambda row: -max(bar.percent for bar in row[1].bars))[:limit]
