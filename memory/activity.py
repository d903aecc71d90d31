"""How much was said lately: counts for the admin's overview, all in UTC days."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connection
from django.db.models import Count, Max, QuerySet
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
    counted = Turn.objects.filter(agent__in=agents, created_at__gte=_midnight()).values("agent").annotate(turns=Count("*"))
    return dict.fromkeys(agents, 0) | {row["agent"]: row["turns"] for row in counted.order_by()}


def turns_by_day(*, agents: list[str], days: int = 14) -> list[Day]:
    """Return the turns of `agents` on each of the last `days` days, the oldest first, days without any included.

    Those that broke are counted after all: of one that began and broke in between, the first count knows nothing.
    """
    first = _midnight() - timedelta(days=days - 1)
    said = Turn.objects.filter(agent__in=agents, created_at__gte=first)
    turns, broken = _count_by_day(said), _count_by_day(said.filter(state__in=_BROKEN))
    wanted = [first.date() + timedelta(days=offset) for offset in range(days)]
    return [Day(day=day, turns=turns.get(day, 0), broken=min(broken.get(day, 0), turns.get(day, 0))) for day in wanted]


def _count_by_day(turns: QuerySet[Turn]) -> dict[date, int]:
    """Count by UTC day. Of two such questions an index answers each; of both in one only the table could."""
    counted = turns.annotate(day=TruncDate("created_at")).values("day").annotate(turns=Count("*")).order_by()
    return {row["day"]: row["turns"] for row in counted}


def breakages_today(agents: list[str]) -> list[Breakage]:
    """Return today's failed and interrupted turns of `agents`, counted by agent and error code, the most frequent first."""
    counted = (
        Turn.objects.filter(agent__in=agents, created_at__gte=_midnight(), state__in=_BROKEN)
        .values("agent", "error_code")
        .annotate(turns=Count("*"), last_at=Max("created_at"))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """How soon answers began in an hour, by its newest ones: of 100, 95 sooner. `first_token_s` None: nobody was answered."""

    began_at: datetime
    turns: int
    first_token_s: float | None


# Ids tell the time (UUIDv7), and of each hour the newest turns alone are read.
_HOURS: Final = """
    SELECT number, count(*), percentile_cont(0.95) WITHIN GROUP (ORDER BY first_token_ms) / 1000.0
    FROM unnest(%s::uuid[], %s::uuid[]) WITH ORDINALITY AS hour (since_id, until_id, number) CROSS JOIN LATERAL (
        SELECT first_token_ms FROM memory_turn
        WHERE id >= since_id AND id < until_id AND agent = ANY (%s) AND first_token_ms IS NOT NULL
        ORDER BY id DESC LIMIT %s
    ) AS turn GROUP BY number
"""


def paces_by_hour(*, agents: list[str], hours: int = 24) -> list[Hour]:
    """Return how quick `agents` were in each of the last `hours` hours, the oldest first, by at most 500 answers of each hour."""
    this_hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    begins = [this_hour - timedelta(hours=offset) for offset in range(hours - 1, -1, -1)]
    bounds = [UUID(int=int(at.timestamp() * 1000) << 80) for at in (*begins, this_hour + timedelta(hours=1))]
    with connection.cursor() as cursor:
        cursor.execute(_HOURS, [bounds[:-1], bounds[1:], agents, _MOST_TIMED])
        found = {number: (turns, first_token_s) for number, turns, first_token_s in cursor.fetchall()}
    paces = [found.get(number, (0, None)) for number in range(1, hours + 1)]
    return [Hour(began_at=at, turns=turns, first_token_s=first) for at, (turns, first) in zip(begins, paces, strict=True)]
