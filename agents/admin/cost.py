"""The page "Cost": what was spent and saved, on what, and what the month will have cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse

from agents.models import Agent, ApiKey
from agents.rest.usage import MOST_DAYS, csv_answer
from memory.api import find_person
from observability.api import UsageLine, Wanted, dearest, forecast_usd, list_failures, report_usage, usd

from .cost_chart import DayCost, draw_costs
from .pages import render_page
from .permissions import may_view_agents, may_view_conversations, may_view_cost, may_view_keys, may_view_memories

_MOST_DEAREST: Final = 10
_MOST_ROWS: Final = 100
_NOTHING: Final = UsageLine(group={})
_CSV_GROUPS: Final = ("day", "agent", "key", "kind", "provider", "model")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of one of the tables: what it is about, where to read more of that, and its figures."""

    title: str
    note: str = ""
    url: str = ""
    line: UsageLine
    share: str = ""

    @property
    def cost(self) -> str:
        # Of calls without a known price alone nobody knows what they cost; it is not nothing.
        return "unknown" if self.line.unpriced and not self.line.cost_usd else usd(self.line.cost_usd)

    @property
    def saved(self) -> str:
        return usd(self.line.saved_usd)

    @property
    def saved_by_caching(self) -> str:
        return usd(self.line.saved_by_caching_usd)

    @property
    def saved_by_routing(self) -> str:
        return usd(self.line.saved_by_routing_usd)

    @property
    def saved_by_routing_net(self) -> str:
        return usd(self.line.saved_by_routing_net_usd)

    @property
    def routing_cost(self) -> str:
        return usd(self.line.routing_cost_usd) if self.line.routing_cost_usd else ""

    @property
    def saved_by_trimming(self) -> str:
        return usd(self.line.saved_by_trimming_usd)

    @property
    def tokens(self) -> int:
        return self.line.prompt_tokens + self.line.completion_tokens


def cost_page(request: HttpRequest) -> HttpResponse:
    """Show what was spent and saved in the days that are asked for, or hand it out as CSV."""
    if not may_view_cost(request):
        raise PermissionDenied
    today = datetime.now(UTC).date()
    first, last, wrong = chosen_days(request, today)
    wanted = Wanted(first=first, last=last)
    if request.GET.get("format") == "csv" and not wrong:
        return csv_answer(report_usage(wanted, by=_CSV_GROUPS), by=_CSV_GROUPS, name=f"cost-{first}-{last}")
    return render_page(request, "admin/observability/cost.html", title="Cost", **_context(request, wanted, today=today, wrong=wrong))


def chosen_days(request: HttpRequest, today: date) -> tuple[date, date, str]:
    """Return the days that are asked for, and what is wrong with them; then, and where none are, this month's until today."""
    month = today.replace(day=1)
    given_first, given_last = request.GET.get("from", ""), request.GET.get("to", "")
    try:
        last = date.fromisoformat(given_last) if given_last else today
        first = date.fromisoformat(given_first) if given_first else last.replace(day=1)
    except ValueError:
        return month, today, "A day is written as 2026-11-01. Below is this month."
    if first > last:
        return month, today, "The first day is after the last one. Below is this month."
    if (last - first).days >= MOST_DAYS:
        return month, today, f"At most {MOST_DAYS} days can be shown at once. Below is this month."
    return first, last, ""


def _context(request: HttpRequest, wanted: Wanted, *, today: date, wrong: str) -> dict[str, Any]:
    total = next(iter(report_usage(wanted)), _NOTHING)
    days = _days(wanted)
    is_this_month = wanted.first == today.replace(day=1) and wanted.last == today
    return {
        "wrong": wrong,
        "first": wanted.first,
        "last": wanted.last,
        "today": today,
        "choices": _choices(wanted, today),
        "csv_query": urlencode({"from": wanted.first, "to": wanted.last, "format": "csv"}),
        "total": Row(title="", line=total),
        "forecast": usd(forecast_usd(today)) if is_this_month else "",
        "hit_rate": f"{total.cached / total.turns:.0%}" if total.turns and total.cached else "",
        "is_empty": total.attempts == 0,
        "chart": draw_costs(days),
        "tables": [
            ("Agents", "Agent", _agents(request, wanted, total)),
            ("Models", "Model", _models(wanted, total)),
            ("API keys", "Key", _keys(request, wanted, total)),
            ("Uses", "Use", [Row(title=line.group["kind"], line=line, share=_share(line, total)) for line in _dearest(wanted, "kind")]),
        ],
        "dearest": [
            ("Most expensive conversations", "Conversation", _conversations(request, wanted)),
            ("Most expensive people", "Person", _people(request, wanted)),
        ],
        "failures": list_failures(wanted),
        "prices_url": _url("observability_modelprice_changelist"),
    }


def _choices(wanted: Wanted, today: date) -> list[tuple[str, str, bool]]:
    """Return the spans that are a click away: their names, their queries, and which one is shown."""
    month = today.replace(day=1)
    spans = [
        ("This month", month, today),
        ("Last month", (month - timedelta(days=1)).replace(day=1), month - timedelta(days=1)),
        ("7 days", today - timedelta(days=6), today),
        ("30 days", today - timedelta(days=29), today),
        ("365 days", today - timedelta(days=364), today),
    ]
    return [(name, urlencode({"from": first, "to": last}), (first, last) == (wanted.first, wanted.last)) for name, first, last in spans]


def _days(wanted: Wanted) -> list[DayCost]:
    known = {line.group["day"]: line for line in report_usage(wanted, by=("day",))}
    days = [wanted.first + timedelta(days=number) for number in range((wanted.last - wanted.first).days + 1)]
    lines = [known.get(day, _NOTHING) for day in days]
    return [
        DayCost(day=day, cost_usd=line.cost_usd, saved_usd=line.saved_usd, turns=line.turns) for day, line in zip(days, lines, strict=True)
    ]


def _dearest(wanted: Wanted, *by: Any) -> list[UsageLine]:
    return report_usage(wanted, by=by, dearest=True, limit=_MOST_ROWS)


def _share(line: UsageLine, total: UsageLine) -> str:
    return f"{line.cost_usd / total.cost_usd:.0%}" if total.cost_usd else ""


def _agents(request: HttpRequest, wanted: Wanted, total: UsageLine) -> list[Row]:
    lines = _dearest(wanted, "agent")
    slugs = [line.group["agent"] for line in lines]
    known = {agent.slug: agent for agent in Agent.objects.filter(slug__in=slugs)}
    may_open = may_view_agents(request)
    rows = []
    for line in lines:
        slug = line.group["agent"]
        agent = known.get(slug)
        url = reverse("admin:agents_agent_change", args=(agent.pk,)) if agent and may_open else ""
        title = agent.name if agent else slug or "no agent"
        rows.append(Row(title=title, note=slug if agent else "", url=url, line=line, share=_share(line, total)))
    return rows


def _models(wanted: Wanted, total: UsageLine) -> list[Row]:
    return [
        Row(title=line.group["model"] or "not known", note=line.group["provider"], line=line, share=_share(line, total))
        for line in _dearest(wanted, "provider", "model")
    ]


def _keys(request: HttpRequest, wanted: Wanted, total: UsageLine) -> list[Row]:
    lines = _dearest(wanted, "key")
    known = {key.prefix: key for key in ApiKey.objects.filter(prefix__in=[line.group["key"] for line in lines]).select_related("owner")}
    may_open = may_view_keys(request)
    rows = []
    for line in lines:
        prefix = line.group["key"]
        key = known.get(prefix)
        url = reverse("admin:agents_apikey_change", args=(key.pk,)) if key and may_open else ""
        title = key.name if key else prefix or "without a key"
        rows.append(Row(title=title, note=f"{key.owner.name}, {prefix}" if key else "", url=url, line=line, share=_share(line, total)))
    return rows


def _conversations(request: HttpRequest, wanted: Wanted) -> Sequence[Row]:
    may_open = may_view_conversations(request)
    rows = []
    for line in dearest(wanted, by=("conversation", "agent"), limit=_MOST_DEAREST):
        number = line.group["conversation"]
        url = reverse("admin:memory_conversation_change", args=(number,)) if may_open else ""
        rows.append(Row(title=f"Conversation {number}", note=line.group["agent"], url=url, line=line))
    return rows


def _people(request: HttpRequest, wanted: Wanted) -> Sequence[Row]:
    """Return the end users and sessions that cost the most: named to those who may see people."""
    may_open = may_view_memories(request)
    rows = []
    for line in dearest(wanted, by=("user",), limit=_MOST_DEAREST):
        number = line.group["user"]
        person = find_person(number) if may_open else None
        url = reverse("admin:memory_subject_change", args=(number,)) if person else ""
        rows.append(Row(title=person.title if person else f"#{number}", note=person.whose if person else "", url=url, line=line))
    return rows


def _url(name: str) -> str:
    try:
        return reverse(f"admin:{name}")
    except NoReverseMatch:
        return ""
