"""What the start page says of today, for those who may see it: health, errors, how fast, what it cost, budgets and alerts.

What could not be read in time is said to be missing; the rest is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.http import HttpRequest

from memory.api import Hour, Pace, paces_by_hour, paces_today
from observability.api import (
    Finding,
    UsageLine,
    Wanted,
    fullest_budgets,
    latest_incidents,
    look_at_alert_targets,
    look_at_breakers,
    look_at_readiness,
    look_at_work,
    report_usage,
    usd,
)

from .charts import Chart, Column, draw_chart
from .cost_chart import DayCost, draw_costs
from .permissions import may_view_budgets, may_view_cost, may_view_doctor, may_view_incidents
from .reading import FIGURE_S, Reading

_DAYS: Final = 14
_MOST_AGENTS: Final = 5
_MOST_BUDGETS: Final = 5
_MOST_INCIDENTS: Final = 5
_NOTHING: Final = UsageLine(group={})


@dataclass(frozen=True, kw_only=True)
class AgentPace:
    """How quick an agent was today, and the address of its page."""

    pace: Pace
    url: str


@dataclass(frozen=True, kw_only=True)
class AgentCost:
    """What an agent cost today. `url`: of its page; "" where it is gone."""

    agent: str
    url: str
    cost: str
    turns: int


def add_today(request: HttpRequest, agents: Mapping[str, str], *, reading: Reading) -> dict[str, Any]:
    """Return what the start page shows of today to this person, who may see `agents` (the addresses of their pages by slug)."""
    slugs = list(agents)
    paces = reading.read("paces of today", lambda: paces_today(slugs))
    hours = reading.read("paces by hour", lambda: paces_by_hour(agents=slugs))
    found: dict[str, Any] = {
        "slowest": None if paces is None else _slowest(paces, agents),
        "hours": hours,
        "pace_chart": draw_paces(hours) if hours and any(hour.turns for hour in hours) else None,
    }
    if may_view_doctor(request):
        found["health"] = _health(reading)
    if may_view_cost(request):
        found |= _cost(datetime.now(UTC).date(), agents, reading)
    if may_view_budgets(request):
        found["budgets"] = reading.read("budgets", lambda: fullest_budgets(limit=_MOST_BUDGETS))
    if may_view_incidents(request):
        found["incidents"] = reading.read("alerts", lambda: latest_incidents(limit=_MOST_INCIDENTS))
    return {"today": found}


def _health(reading: Reading) -> list[tuple[str, Finding]]:
    """Return how each part stands; what could not be read in time is a finding, too."""
    missing = Finding.warning(
        "could not be read in time",
        "The database is busy. Open the page again in a moment; see docs/runbooks/overload.md where it stays so.",
    )
    # A check with less time would be said to fail.
    findings = look_at_readiness(deadline_s=FIGURE_S) if reading.has_time() else [("checks", missing)]
    looks = {"worker and queues": look_at_work, "models left alone": look_at_breakers, "alert targets": look_at_alert_targets}
    for name, look in looks.items():
        seen = reading.read(name, look)
        findings += [(name, missing)] if seen is None else seen
    return findings


def _slowest(paces: Sequence[Pace], urls: Mapping[str, str]) -> list[AgentPace]:
    slowest = sorted(paces, key=lambda pace: -pace.first_token_s)[:_MOST_AGENTS]
    return [AgentPace(pace=pace, url=urls[pace.agent]) for pace in slowest]


def draw_paces(hours: Sequence[Hour]) -> Chart:
    """Lay out how soon answers began in each of `hours`."""
    return draw_chart(
        [_column(hour) for hour in hours],
        unit="seconds",
        says="how soon answers began in each hour",
        heads=("Hour (UTC)", "First words", "Answers looked at"),
        shown=lambda seconds: f"{seconds.normalize():f}",
    )


def _column(hour: Hour) -> Column:
    at = f"{hour.began_at:%H:%M}"
    seconds = "nobody was answered" if hour.first_token_s is None else f"{hour.first_token_s:.2f} s"
    value = Decimal(f"{hour.first_token_s or 0:.3f}")
    return Column(
        label=at, name=f"{hour.began_at:%-d %b, %H:%M}", value=value, words=f"{at}: {seconds}", cells=(seconds, f"{hour.turns:,}")
    )


def _cost(today: date, urls: Mapping[str, str], reading: Reading) -> dict[str, Any]:
    wanted = Wanted(first=today - timedelta(days=_DAYS - 1), last=today)
    of_today = Wanted(first=today, last=today)
    lines = reading.read("cost by day", lambda: report_usage(wanted, by=("day",)))
    dearest = reading.read("dearest agents", lambda: report_usage(of_today, by=("agent",), dearest=True, limit=_MOST_AGENTS))
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
        "dearest": [_agent_cost(line, urls) for line in dearest if line.cost_usd > Decimal(0)],
    }


def _agent_cost(line: UsageLine, urls: Mapping[str, str]) -> AgentCost:
    slug = line.group["agent"]
    return AgentCost(agent=slug or "no agent", url=urls.get(slug, ""), cost=usd(line.cost_usd), turns=line.turns)
