"""What the start page says of today, for those who may see it: health, errors, how fast, what it cost, budgets and alerts.

Each figure is read within half a second, or said to be missing: a busy database must not take the page with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.http import HttpRequest

from memory.api import Pace, paces_today
from observability.api import UsageLine, Wanted, fullest_budgets, latest_incidents, look_at_work, report_usage, usd

from .cost_chart import DayCost, draw_costs
from .permissions import may_view_budgets, may_view_cost, may_view_doctor, may_view_incidents

T = TypeVar("T")

_DEADLINE_MS: Final = 500
_DAYS: Final = 14
_MOST_AGENTS: Final = 5
_MOST_BUDGETS: Final = 5
_MOST_INCIDENTS: Final = 5
_NOTHING: Final = UsageLine(group={})


@dataclass(frozen=True, kw_only=True)
class AgentCost:
    """What an agent cost today."""

    agent: str
    cost: str
    turns: int


def add_today(request: HttpRequest, agents: list[str]) -> dict[str, Any]:
    """Return what the start page shows of today to this person, who may see `agents` (slugs)."""
    paces = _read(lambda: paces_today(agents))
    found: dict[str, Any] = {"slowest": _slowest(paces)}
    if may_view_doctor(request):
        found["health"] = _read(look_at_work)
    if may_view_cost(request):
        found |= _cost(datetime.now(UTC).date())
    if may_view_budgets(request):
        found["budgets"] = _read(lambda: fullest_budgets(limit=_MOST_BUDGETS))
    if may_view_incidents(request):
        found["incidents"] = _read(lambda: latest_incidents(limit=_MOST_INCIDENTS))
    return {"today": found}


def _read(ask: Callable[[], T]) -> T | None:
    """Return what `ask` reads of the database; None: it took too long."""
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {_DEADLINE_MS}")
            return ask()
    except DatabaseError:
        return None


def _slowest(paces: list[Pace] | None) -> list[Pace] | None:
    return paces if paces is None else sorted(paces, key=lambda pace: -pace.first_token_s)[:_MOST_AGENTS]


def _cost(today: date) -> dict[str, Any]:
    wanted = Wanted(first=today - timedelta(days=_DAYS - 1), last=today)
    lines = _read(lambda: report_usage(wanted, by=("day",)))
    dearest = _read(lambda: report_usage(Wanted(first=today, last=today), by=("agent",), dearest=True, limit=_MOST_AGENTS))
    if lines is None or dearest is None:
        return {"cost": None}
    of_day = {line.group["day"]: line for line in lines}
    days = [wanted.first + timedelta(days=number) for number in range(_DAYS)]
    costs = [
        DayCost(day=day, cost_usd=line.cost_usd, saved_usd=line.saved_usd, turns=line.turns)
        for day, line in ((day, of_day.get(day, _NOTHING)) for day in days)
    ]
    return {
        "cost": usd(costs[-1].cost_usd),
        "cost_in_all": usd(sum((cost.cost_usd for cost in costs), Decimal(0))),
        "cost_chart": draw_costs(costs) if any(cost.cost_usd for cost in costs) else None,
        "dearest": [
            AgentCost(agent=line.group["agent"] or "no agent", cost=usd(line.cost_usd), turns=line.turns)
            for line in dearest
            if line.cost_usd > Decimal(0)
        ],
    }
