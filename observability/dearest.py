"""Which conversations and people cost the most, found among millions without adding up each of them.

Those of a few days are added up and put in order. Of many days only those are added up that have the highest totals over all
time (`observability.rollups`) of all that were there on these days. Nobody can have cost more on some days than over all time: where
as many as are wanted cost at least as much as the least of these totals, they are the dearest. Where not, as where
the keys that are wanted make few of all calls, more conversations are looked at, and, if need be, all that is wanted is added up:
that they were looked for in vain is the lesser part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from django.db import connection, transaction

from observability.rollups import IN_NO_SUM
from observability.usage import Group, UsageLine, Wanted, bounds_of, conditions_of, report_usage

_FEW_DAYS: Final = 7
_LOOKED_AT_FOR_EACH: Final = 10
_LOOKED_AT_AGAIN: Final = 5_000
_MOST_NOT_SUMMED: Final = 10_000
# All are put in order by approximate sums, with room to hash them; exact sums of a few follow.
_ROOM_TO_RANK: Final = "SELECT set_config('work_mem', '64MB', true)"
_RANKED_TOO_MANY: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """Where the sums and totals of a kind are, which column tells them apart, and how what is wanted names them."""

    sums: str
    totals: str
    column: str
    named: str
    is_looked_at_again: bool
    """Of each one there are so few sums that many can be looked at in less time than all."""


_CONVERSATIONS: Final = _Kind(
    sums="observability_usageconversation",
    totals="observability_totalofconversation",
    column="conversation_id",
    named="conversations",
    is_looked_at_again=True,
)
_PEOPLE: Final = _Kind(
    sums="observability_usageperson",
    totals="observability_totalofperson",
    column="subject_id",
    named="people",
    is_looked_at_again=False,
)
_KIND_OF: Final[Mapping[frozenset[Group], _Kind]] = {
    frozenset({"user"}): _PEOPLE,
    frozenset({"conversation"}): _CONVERSATIONS,
    frozenset({"conversation", "agent"}): _CONVERSATIONS,  # which has one agent
}


def dearest(wanted: Wanted, *, by: Sequence[Group], limit: int) -> list[UsageLine]:
    """Return the lines of a report that cost the most, the most expensive first, of those that cost something.

    By user or conversation, what is nobody's or of no conversation is left out.

    Raises:
        ValueError: nothing is kept by all of these groups at once.
    """
    kind = _KIND_OF.get(frozenset(by))
    if kind is None:
        return [line for line in report_usage(wanted, by=by, dearest=True, named=True, limit=limit) if line.cost_usd]
    are_many_days = (wanted.last - wanted.first).days >= _FEW_DAYS
    looks = [limit * _LOOKED_AT_FOR_EACH]
    if kind.is_looked_at_again and looks[0] < _LOOKED_AT_AGAIN:
        looks.append(_LOOKED_AT_AGAIN)
    for highest in looks if are_many_days else ():
        candidates = _candidates(wanted, kind, highest=highest)
        if candidates is None:
            break
        ids, others_at_most_usd = candidates
        lines = _lines(ids, wanted, kind, by=by, limit=limit)
        if not others_at_most_usd or (len(lines) == limit and lines[-1].cost_usd >= others_at_most_usd):
            return lines
    return _lines(_rank_all(wanted, kind, limit=limit), wanted, kind, by=by, limit=limit)


def _lines(ids: list[int], wanted: Wanted, kind: _Kind, *, by: Sequence[Group], limit: int) -> list[UsageLine]:
    chosen: dict[str, Any] = {kind.named: ids}
    lines = report_usage(replace(wanted, **chosen), by=by, dearest=True, limit=limit) if ids else []
    return [line for line in lines if line.cost_usd]


def _candidates(wanted: Wanted, kind: _Kind, *, highest: int) -> tuple[list[int], Decimal] | None:
    """Return the first so many by their totals and those with calls in no total yet, and what each of the others cost at most.

    None where totals are not up to date, or too much is in none yet.
    """
    of_totals = f"""
        SELECT {kind.column}, cost_usd FROM {kind.totals} WHERE {kind.column} <> 0 AND first_day <= %s AND last_day >= %s
          AND (SELECT totals_upto_xid = upto_xid FROM observability_rollupstate)
        ORDER BY cost_usd DESC, last_day DESC LIMIT %s
    """  # noqa: S608 - constants
    in_no_total = f"""
        SELECT DISTINCT {kind.column} FROM observability_attempt WHERE {IN_NO_SUM} AND {kind.column} <> 0 LIMIT %s
    """  # noqa: S608 - constants
    with connection.cursor() as cursor:
        # In this order: what the worker sums meanwhile is then in both rather than in none.
        cursor.execute(in_no_total, [_MOST_NOT_SUMMED])
        others = [id for (id,) in cursor.fetchall()]
        cursor.execute(of_totals, [wanted.last, wanted.first, highest])
        totals = cursor.fetchall()
    if not totals or len(others) == _MOST_NOT_SUMMED:
        return None
    at_most_usd = totals[-1][1] if len(totals) == highest else Decimal(0)
    return [*{id for id, _ in totals}.union(others)], at_most_usd


def _rank_all(wanted: Wanted, kind: _Kind, *, limit: int) -> list[int]:
    """Return the dearest by approximate sums, and a few more: those that come next may cost a little more in truth."""
    conditions, values = conditions_of(wanted)
    first, after = bounds_of(wanted)
    statement = f"""
        SELECT {kind.column} FROM (
            SELECT {kind.column}, cost_usd::float8 AS cost FROM {kind.sums}
            WHERE day >= %s AND day < %s {conditions}
            UNION ALL
            SELECT {kind.column}, cost_usd::float8 FROM observability_attempt
            WHERE {IN_NO_SUM} AND started_at >= %s AND started_at < %s {conditions}
        ) AS line
        WHERE {kind.column} <> 0 AND cost > 0 GROUP BY 1 ORDER BY sum(cost) DESC LIMIT %s
    """  # noqa: S608 - built of constants; values are parameters
    days = [wanted.first, wanted.last + timedelta(days=1)]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_ROOM_TO_RANK)
        cursor.execute(statement, [*days, *values, first, after, *values, limit + _RANKED_TOO_MANY])
        return [id for (id,) in cursor.fetchall()]
