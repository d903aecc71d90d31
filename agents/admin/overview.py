"""The admin's start page: what is live, how much is said, what broke, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.http import HttpRequest

from agents.models import Agent, Provider
from agents.versions.publishing import default_provider
from memory.api import Breakage, Day, breakages_today, turns_by_day, turns_today

from .charts import Chart, Column, draw_chart
from .glance import glance_at, urls_of
from .permissions import may_add_agents, may_edit_agents, may_view_agents, may_view_providers, may_view_turns
from .today import add_today, read_in_time


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
    turns, breakages, days = (
        read_in_time(lambda: turns_today(slugs)),
        read_in_time(lambda: breakages_today(slugs)),
        read_in_time(lambda: turns_by_day(agents=slugs)),
    )
    urls = urls_of(agents)
    today = add_today(request, urls) if agents else {}
    return (
        context
        | today
        | _broken(turns, breakages, urls)
        | {
            "title": "Overview",
            "agents": glance_at(agents, turns=turns or {}, may_try=may_edit_agents(request)),
            "turns_today": None if turns is None else sum(turns.values()),
            "turns_in_all": sum(day.turns for day in days or ()),
            "chart": None if days is None else draw_turns(days),
            "may_add": may_add_agents(request),
            "may_edit": may_edit_agents(request),
            "may_view_providers": may_view_providers(request),
            "may_view_turns": may_view_turns(request),
            "has_provider": Provider.objects.filter(is_default=True).exists(),
        }
    )


def _broken(turns: dict[str, int] | None, breakages: list[Breakage] | None, urls: Mapping[str, str]) -> dict[str, Any]:
    """Return what is said of today's failures; where they could not be read in time, None in place of each."""
    if breakages is None:
        return {"breakages": None, "broken_today": None}
    broken = sum(breakage.turns for breakage in breakages)
    return {
        "breakages": [(breakage, urls[breakage.agent]) for breakage in breakages],
        "broken_today": broken,
        "broken_share": f"{broken / max(1, sum(turns.values())):.1%} of all turns" if turns and sum(turns.values()) else "",
    }


def draw_turns(days: Sequence[Day]) -> Chart:
    """Lay out the bars of `days`, what went wrong of each hatched."""
    return draw_chart(
        [_column(day) for day in days],
        unit="turns",
        says="turns a day",
        heads=("Day", "Turns", "Failed or interrupted"),
        shown=lambda turns: f"{int(turns):,}",
        least=1,
    )


def _column(day: Day) -> Column:
    label = f"{day.day:%-d %b}"
    return Column(
        label=label,
        name=f"{day.day:%a %-d %b}",
        value=Decimal(day.turns),
        broken=Decimal(day.broken),
        words=f"{label}: {day.turns:,} turns, {day.broken:,} failed or interrupted",
        cells=(f"{day.turns:,}", f"{day.broken:,}"),
    )
