"""How much was said lately: counts for the admin's overview, all in UTC days."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from django.db import connection
from django.db.models import Count, Max, Q
from django.db.models.functions import TruncDate
from django.utils import timezone

from memory.models import Turn, TurnState

_BROKEN: Final = (TurnState.FAILED, TurnState.INTERRUPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day's turns; `broken` of them failed or were interrupted."""

    day: date
    turns: int
    broken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakage:
    """Turns of one agent that broke today for one reason."""

    agent: str
    error_code: str
    turns: int
    last_at: datetime


def turns_today(agents: list[str]) -> dict[str, int]:
    """Return how many turns each of `agents` (slugs) had since midnight UTC; 0 for those without any."""
    counted = Turn.objects.filter(agent__in=agents, created_at__gte=_midnight()).values("agent").annotate(turns=Count("id"))
    return dict.fromkeys(agents, 0) | {row["agent"]: row["turns"] for row in counted.order_by()}


def turns_by_day(*, agents: list[str], days: int = 14) -> list[Day]:
    """Return the turns of `agents` on each of the last `days` days, the oldest first, days without any included."""
    first = _midnight() - timedelta(days=days - 1)
    counted = (
        Turn.objects.filter(agent__in=agents, created_at__gte=first)
        .annotate(day=TruncDate("created_at"))
        .values("day")
        .annotate(turns=Count("id"), broken=Count("id", filter=Q(state__in=_BROKEN)))
        .order_by()
    )
    by_day = {row["day"]: row for row in counted}
    wanted = [first.date() + timedelta(days=offset) for offset in range(days)]
    return [
        Day(day=day, turns=by_day[day]["turns"], broken=by_day[day]["broken"]) if day in by_day else Day(day=day, turns=0, broken=0)
        for day in wanted
    ]


def breakages_today(agents: list[str]) -> list[Breakage]:
    """Return today's failed and interrupted turns of `agents`, counted by agent and error code, the most frequent first."""
    counted = (
        Turn.objects.filter(agent__in=agents, created_at__gte=_midnight(), state__in=_BROKEN)
        .values("agent", "error_code")
        .annotate(turns=Count("id"), last_at=Max("created_at"))
        .order_by("-turns", "agent")
    )
    return [Breakage(**row) for row in counted]


def _midnight() -> datetime:
    return timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How quick an agent was in its newest turns of today: of 100, 95 began to be answered sooner, and ended sooner."""

    agent: str
    turns: int
    first_token_s: float
    whole_s: float


_MOST_TIMED: Final = 500
# Of each agent the newest turns alone, so that it takes as long for a million.
_PACES: Final = """
    SELECT slug, count(*), percentile_cont(0.95) WITHIN GROUP (ORDER BY first_token_ms) / 1000.0,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)::float8)
    FROM unnest(%s::text[]) AS slug CROSS JOIN LATERAL (
        SELECT first_token_ms, finished_at, created_at FROM memory_turn
        WHERE agent = slug AND created_at >= %s AND first_token_ms IS NOT NULL AND finished_at IS NOT NULL
        ORDER BY created_at DESC LIMIT %s
    ) AS turn GROUP BY slug
"""


def paces_today(agents: list[str]) -> list[Pace]:
    """Return how quick those of `agents` were that answered today, by at most their 500 newest turns each."""
    with connection.cursor() as cursor:
        cursor.execute(_PACES, [agents, _midnight(), _MOST_TIMED])
        return [Pace(agent=agent, turns=turns, first_token_s=first, whole_s=whole) for agent, turns, first, whole in cursor.fetchall()]
