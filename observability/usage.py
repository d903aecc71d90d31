"""Reports: what was used, what it cost and what was saved, grouped by day, agent, key, person, model or kind.

They read the sums (`observability.rollups`) and, on top, the attempts that are not in them yet: exact at every moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from django.db import connection

from observability.rollups import IN_NO_SUM, MEASURES, TABLES, sums_of_attempts

Group = Literal["day", "hour", "agent", "key", "user", "model", "provider", "kind", "conversation"]

_COLUMN_OF: Final[dict[Group, str]] = {"user": "subject_id", "conversation": "conversation_id"}
_TOTALS: Final = ", ".join(f"sum({name})::{'numeric' if name.endswith('_usd') else 'bigint'} AS {name}" for name in MEASURES)
_FORECAST_FROM_DAYS: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a report is of: UTC days, both included, and whose. None: of all."""

    first: date
    last: date
    agents: Sequence[str] | None = None
    keys: Sequence[str] | None = None
    people: Sequence[int] | None = None
    conversations: Sequence[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """One line of a report. `group` holds the values grouped by, by name; money in US dollars."""

    group: dict[str, Any]
    attempts: int = 0
    turns: int = 0
    failed: int = 0
    cached: int = 0
    routed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    trimmed_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    saved_usd: Decimal = Decimal(0)
    saved_by_routing_usd: Decimal = Decimal(0)
    routing_cost_usd: Decimal = Decimal(0)
    saved_by_trimming_usd: Decimal = Decimal(0)
    unpriced: int = 0

    @property
    def saved_by_caching_usd(self) -> Decimal:
        return self.saved_usd - self.saved_by_routing_usd

    @property
    def saved_by_routing_net_usd(self) -> Decimal:
        """What cheaper models saved, less what it cost to ask which messages are simple: below 0 where asking did not pay."""
        return self.saved_by_routing_usd - self.routing_cost_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Attempts that failed in one way."""

    provider: str
    model: str
    outcome: str
    error_code: str
    attempts: int
    last_at: datetime


def report_usage(
    wanted: Wanted, *, by: Sequence[Group] = (), dearest: bool = False, named: bool = False, limit: int | None = None
) -> list[UsageLine]:
    """Return the sums of what is `wanted`, one line for each group. Without groups: one line, or none.

    Args:
        dearest: the most expensive first; otherwise in the groups' order.
        named: by user or conversation, leave out what is nobody's or of no conversation.
        limit: return at most so many lines.

    Raises:
        ValueError: nothing is kept by all of these groups at once.
    """
    table, columns = _table_for(wanted, by)
    groups = [_COLUMN_OF.get(group, group) for group in by]
    conditions, values = conditions_of(wanted)
    if named:
        conditions += "".join(f" AND {_COLUMN_OF[group]} <> 0" for group in by if group in _COLUMN_OF)
    first, after = bounds_of(wanted)
    when = columns[0]
    bounds: list[Any] = [first, after] if when == "hour" else [wanted.first, wanted.last + timedelta(days=1)]
    places = ", ".join(str(place) for place in range(1, len(columns) + 1))
    order = "cost_usd DESC, attempts DESC" if dearest else ", ".join(groups)
    statement = f"""
        WITH line AS (
            SELECT {", ".join([*columns, *MEASURES])} FROM {table} WHERE {when} >= %s AND {when} < %s {conditions}
            UNION ALL
            SELECT {sums_of_attempts(columns)} FROM observability_attempt
            WHERE {IN_NO_SUM} AND started_at >= %s AND started_at < %s {conditions}
            GROUP BY {places}
        )
        SELECT {"".join(f"{group}, " for group in groups)}{_TOTALS} FROM line
        {f"GROUP BY {', '.join(groups)} ORDER BY {order}" if groups else "HAVING count(*) > 0"}
        LIMIT %s
    """  # noqa: S608 - built of constants; values are parameters
    with connection.cursor() as cursor:
        cursor.execute(statement, [*bounds, *values, first, after, *values, limit])
        rows = cursor.fetchall()
    return [UsageLine(group=dict(zip(by, row[: len(by)], strict=True)), **dict(zip(MEASURES, row[len(by) :], strict=True))) for row in rows]


def _table_for(wanted: Wanted, by: Sequence[Group]) -> tuple[str, tuple[str, ...]]:
    """Return the smallest table of sums that knows all of it, and its columns."""
    needed = {_COLUMN_OF.get(group, group) for group in by}
    needed |= {"subject_id"} if wanted.people is not None else set()
    needed |= {"conversation_id"} if wanted.conversations is not None else set()
    for table in ("observability_usageday", "observability_usagehour", "observability_usageperson", "observability_usageconversation"):
        if needed <= set(TABLES[table]):
            return table, TABLES[table]
    raise ValueError(f"nothing is kept by {', '.join(by)} at once")


def conditions_of(wanted: Wanted) -> tuple[str, list[Any]]:
    """Return whose lines are wanted, as what follows a `WHERE` with days, and its values."""
    conditions = ""
    values: list[Any] = []
    named: tuple[tuple[str, Sequence[Any] | None], ...] = (
        ("agent", wanted.agents),
        ("key", wanted.keys),
        ("subject_id", wanted.people),
        ("conversation_id", wanted.conversations),
    )
    for column, chosen in named:
        if chosen is not None:
            conditions += f" AND {column} = ANY(%s)"
            values.append(list(chosen))
    return conditions, values


def bounds_of(wanted: Wanted) -> tuple[datetime, datetime]:
    """Return when the first day begins and when the last one is over."""
    first = datetime.combine(wanted.first, datetime.min.time(), UTC)
    return first, datetime.combine(wanted.last, datetime.min.time(), UTC) + timedelta(days=1)


def list_failures(wanted: Wanted, *, limit: int = 50) -> list[Failure]:
    """Return which attempts failed and how, the most frequent first."""
    conditions, values = conditions_of(wanted)
    statement = f"""
        SELECT provider, model, outcome, error_code, count(*), max(started_at) FROM observability_attempt
        WHERE outcome IN ('failed', 'interrupted', 'orphaned') AND started_at >= %s AND started_at < %s {conditions}
        GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 1, 2, 3, 4 LIMIT %s
    """  # noqa: S608 - built of constants; values are parameters
    with connection.cursor() as cursor:
        cursor.execute(statement, [*bounds_of(wanted), *values, limit])
        return [Failure(**dict(zip(Failure.__slots__, row, strict=True))) for row in cursor.fetchall()]


def forecast_usd(today: date, *, agents: Sequence[str] | None = None, keys: Sequence[str] | None = None) -> Decimal:
    """Return what this month will have cost at its end, in US dollars, if it goes on as in the last 14 days; of `agents` and `keys` alone.

    Where there was nothing before, days are counted from the first one; on that day itself, as if all were like it so far.
    """
    month_first = today.replace(day=1)
    month_after = (month_first + timedelta(days=32)).replace(day=1)
    spent = sum((line.cost_usd for line in report_usage(Wanted(first=month_first, last=today, agents=agents, keys=keys))), Decimal(0))
    fortnight = Wanted(first=today - timedelta(days=_FORECAST_FROM_DAYS), last=today, agents=agents, keys=keys)
    lately = report_usage(fortnight, by=("day",))
    each_day: Decimal
    before = [line for line in lately if line.group["day"] < today]
    if before:
        each_day = sum((line.cost_usd for line in before), Decimal(0)) / (today - before[0].group["day"]).days
    else:
        each_day = sum((line.cost_usd for line in lately), Decimal(0))
    return spent + each_day * ((month_after - today).days - 1)
