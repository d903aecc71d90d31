"""The admin's start page: what is live, how much is said, what broke, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from django.http import HttpRequest

from agents.models import Agent, Provider
from agents.versions.publishing import default_provider
from memory.api import Day, breakages_today, turns_by_day, turns_today

from .charts import Chart, Column, draw_chart
from .glance import glance_at, urls_of
from .permissions import may_add_agents, may_edit_agents, may_view_agents, may_view_providers, may_view_turns
from .reading import Reading
from .today import add_today

_MOST_LISTED: Final = 200


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
    reading = Reading()
    agents = reading.read("agents", lambda: list(Agent.objects.only("slug").order_by("slug")))
    if agents is None:
        return context | {"title": "Overview", "agents_are_missing": True}
    urls, may_edit = urls_of(agents), may_edit_agents(request)
    turns = reading.read("turns of today", lambda: turns_today(list(urls)))
    listed = Agent.objects.select_related("live_version__provider").order_by("slug")[:_MOST_LISTED]
    glances = reading.read("list of agents", lambda: glance_at(listed, turns=turns or {}, may_try=may_edit))
    return (
        context
        | _said(urls, turns, reading)
        | (add_today(request, urls, reading=reading) if agents else {})
        | {
            "title": "Overview",
            "agents_in_all": len(agents),
            "agents": glances,
            "may_add": may_add_agents(request),
            "may_edit": may_edit,
            "may_view_providers": may_view_providers(request),
            "may_view_turns": may_view_turns(request),
            "has_provider": reading.read("default provider", Provider.objects.filter(is_default=True).exists),
        }
    )


def _said(urls: Mapping[str, str], turns: Mapping[str, int] | None, reading: Reading) -> dict[str, Any]:
    """Return what is shown of `turns` (today's, by agent), of those that broke, and of the days before; None for what is missing."""
    breakages = reading.read("what broke today", lambda: breakages_today(list(urls)))
    days = reading.read("turns by day", lambda: turns_by_day(agents=list(urls)))
    said = None if turns is None else sum(turns.values())
    broken = None if breakages is None else sum(breakage.turns for breakage in breakages)
    if said is not None and broken is not None:
        broken = min(broken, said)  # counted a moment later, there may be more
    return {
        "turns_today": said,
        "broken_today": broken,
        "broken_share": f"{broken / said:.1%} of all turns" if said and broken is not None else "",
        "breakages": None if breakages is None else [(breakage, urls[breakage.agent]) for breakage in breakages],
        "turns_in_all": sum(day.turns for day in days or ()),
        "chart": None if days is None else draw_turns(days),
    }


def draw_turns(days: Sequence[Day]) -> Chart:
    """Lay out the bars of `days`, what went wrong of each hatched."""
    return draw_chart(
        [_column(day) for day in days],
        unit="turns",
        says="how much was said on each day",
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
