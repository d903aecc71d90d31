"""The admin's start page: what is live, how much is said, what broke, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest

from agents.models import Agent, Provider
from agents.versions.publishing import default_provider
from memory.api import Day, breakages_today, turns_by_day, turns_today

from .glance import Glance, glance_at
from .permissions import may_add_agents, may_edit_agents, may_view_agents, may_view_providers, may_view_turns
from .today import add_today

WIDTH: Final = 720
HEIGHT: Final = 200
LEFT: Final = 44
BOTTOM: Final = 34
TOP: Final = 12


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A day's bar in the chart, in the chart's own units; `broken_height` is the part that failed."""

    x: float
    y: float
    width: float
    height: float
    broken_y: float
    broken_height: float
    label_x: float
    day: Day
    labelled: bool


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A bar chart of turns a day."""

    bars: list[Bar]
    ticks: list[tuple[float, int]]
    total: int
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    baseline: int = HEIGHT - BOTTOM


def environment_label(request: HttpRequest) -> list[str] | None:
    """Return unfold's header label: the installation's name, in red where mistakes are dear."""
    from django.conf import settings

    name = settings.ENVIRONMENT_NAME
    if not name:
        return None
    return [name, "danger" if name.lower().startswith("prod") else "info"]


def demo_banner(request: HttpRequest) -> dict[str, Any]:
    """Tell every admin page whether the default provider is the built-in demo model."""
    if not request.user.is_authenticated:
        return {}
    provider = default_provider()
    return {"default_is_demo": bool(provider and provider.is_demo)}


def add_overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Fill the start page's context with what this person may see."""
    if not may_view_agents(request):
        return context
    agents = list(Agent.objects.select_related("live_version__provider").order_by("slug")[:200])
    slugs = [agent.slug for agent in agents]
    turns, breakages = turns_today(slugs), breakages_today(slugs)
    broken = sum(breakage.turns for breakage in breakages)
    glances: list[Glance] = glance_at(agents, turns=turns, may_try=may_edit_agents(request))
    today = add_today(request, slugs) if agents else {}
    return (
        context
        | today
        | {
            "title": "Overview",
            "agents": glances,
            "turns_today": sum(turns.values()),
            "breakages": breakages,
            "broken_today": broken,
            "broken_share": f"{broken / max(1, sum(turns.values())):.1%}",
            "chart": draw_chart(turns_by_day(agents=slugs)),
            "may_add": may_add_agents(request),
            "may_edit": may_edit_agents(request),
            "may_view_providers": may_view_providers(request),
            "may_view_turns": may_view_turns(request),
            "has_provider": Provider.objects.filter(is_default=True).exists(),
        }
    )


def draw_chart(days: list[Day]) -> Chart:
    """Lay out the bars of `days` above an axis of whole, round numbers."""
    step = _round_step(max((day.turns for day in days), default=0))
    top = step * max(1, -(-max((day.turns for day in days), default=0) // step))
    scale = (HEIGHT - BOTTOM - TOP) / top
    slot = (WIDTH - LEFT) / max(1, len(days))
    bars = []
    for position, day in enumerate(days):
        height, broken = day.turns * scale, day.broken * scale
        x = LEFT + position * slot
        bars.append(
            Bar(
                x=round(x + slot * 0.15, 1),
                y=round(HEIGHT - BOTTOM - height, 1),
                width=round(slot * 0.7, 1),
                height=round(height, 1),
                broken_y=round(HEIGHT - BOTTOM - broken, 1),
                broken_height=round(broken, 1),
                label_x=round(x + slot / 2, 1),
                day=day,
                labelled=position % 2 == (len(days) - 1) % 2,
            )
        )
    ticks = [(round(HEIGHT - BOTTOM - value * scale, 1), value) for value in range(0, top + 1, step)]
    return Chart(bars=bars, ticks=ticks, total=sum(day.turns for day in days))


def _round_step(highest: int) -> int:
    wanted = max(1, highest / 4)
    power = 1
    while power * 10 <= wanted:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted)
