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

from observability.rollups import MEASURES, SUMS

Group = Literal["day", "hour", "agent", "key", "user", "model", "kind"]

_COLUMN_OF: Final[dict[Group, str]] = {
    "day": "day",
    "hour": "hour",
    "agent": "agent",
    "key": "key",
    "user": "subject_id",
    "model": "model",
    "kind": "kind",
}
_NAMES: Final = ", ".join(MEASURES)
_TOTALS: Final = ", ".join(f"sum({name}) AS {name}" for name in MEASURES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a report is of: UTC days, both included, and whose. None: of all."""

    first: date
    last: date
    agents: Sequence[str] | None = None
    keys: Sequence[str] | None = None
    subject_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """One line of a report. `group` holds the values grouped by, by name; money in US dollars."""

    group: dict[str, Any]
    attempts: int
    failed: int
    cached: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: Decimal
    saved_usd: Decimal
    unpriced: int


def report(wanted: Wanted, *, by: Sequence[Group] = ()) -> list[UsageLine]:
    """Return the sums of what is `wanted`, one line for each group, in the groups' order. Without groups: one line, or none."""
    by_hour = "hour" in by
    if by_hour and "user" in by:
        raise ValueError("hours are not kept by person")
    table, when = ("observability_usagehour", "hour") if by_hour else ("observability_usageday", "day")
    groups = [_COLUMN_OF[group] for group in by]
    conditions, values = _conditions(wanted)
    first, after = _bounds(wanted)
    bounds: list[Any] = [first, after] if by_hour else [wanted.first, wanted.last + timedelta(days=1)]
    columns = "agent, key, kind, provider, model" + ("" if by_hour else ", subject_id")
    moment = "date_trunc('hour', started_at, 'UTC')" if by_hour else "(started_at AT TIME ZONE 'UTC')::date"
    statement = f"""
        WITH upto AS MATERIALIZED (SELECT coalesce(max(upto_xid), 0) AS upto_xid FROM observability_rollupstate),
        line AS (
            SELECT {when}, {columns}, {_NAMES} FROM {table} WHERE {when} >= %s AND {when} < %s {conditions}
            UNION ALL
            SELECT {moment} AS {when}, {columns}, {SUMS} FROM observability_attempt
            WHERE settled_xid >= (SELECT upto_xid FROM upto) AND started_at >= %s AND started_at < %s {conditions}
            GROUP BY 1, {columns}
        )
        SELECT {"".join(f"{group}, " for group in groups)}{_TOTALS} FROM line
        {f"GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else "HAVING count(*) > 0"}
    """  # noqa: S608 - built of constants; values are parameters
    with connection.cursor() as cursor:
        cursor.execute(statement, [*bounds, *values, first, after, *values])
        rows = cursor.fetchall()
    return [UsageLine(group=dict(zip(by, row[: len(by)], strict=True)), **dict(zip(MEASURES, row[len(by) :], strict=True))) for row in rows]


def _conditions(wanted: Wanted) -> tuple[str, list[Any]]:
    conditions = ""
    values: list[Any] = []
    named: tuple[tuple[str, Any], ...] = (("agent", wanted.agents), ("key", wanted.keys))
    for column, chosen in named:
        if chosen is not None:
            conditions += f" AND {column} = ANY(%s)"
            values.append(list(chosen))
    if wanted.subject_id is not None:
        conditions += " AND subject_id = %s"
        values.append(wanted.subject_id)
    return conditions, values


def _bounds(wanted: Wanted) -> tuple[datetime, datetime]:
    first = datetime.combine(wanted.first, datetime.min.time(), UTC)
    return first, datetime.combine(wanted.last, datetime.min.time(), UTC) + timedelta(days=1)


def forecast_usd(today: date) -> Decimal:
    """Return what this month will have cost at its end, in US dollars, if it goes on as in the last 14 days."""
    month_first = today.replace(day=1)
    month_after = (month_first + timedelta(days=32)).replace(day=1)
    so_far = report(Wanted(first=month_first, last=today))
    lately = report(Wanted(first=today - timedelta(days=14), last=today - timedelta(days=1)))
    spent = so_far[0].cost_usd if so_far else Decimal(0)
    each_day = (lately[0].cost_usd if lately else Decimal(0)) / 14
    return spent + each_day * ((month_after - today).days - 1)
