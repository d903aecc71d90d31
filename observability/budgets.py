"""Budgets hold before money is spent: the worst case of a call is promised to it first, and what it did not use is given back.

A promise locks the rows of all periods that apply, in the order of their ids, so that two transactions never wait for each other
in a circle, and is made by all of them or by none. Runs inside a transaction that the caller began.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.db import connection

from observability.models import Budget, BudgetScope, OnUnknownPrice
from observability.periods import period_of
from observability.polled import Polled
from observability.rollups import IN_NO_SUM
from observability.statements import Statement, run_together
from observability.succession import payers_of

# Functions of the database (migration 0014). Missing periods are made, and all are locked in the order of their ids.
_LOCK: Final = """
    SELECT id, budget_id, subject_id, starts_at, is_new, name, limit_usd, limit_tokens, on_unknown_price, ends_at, spent_usd, reserved_usd,
           spent_tokens, reserved_tokens, was_refused
    FROM lock_budget_periods(%s::bigint[], %s::bigint[], %s::timestamptz[], %s::timestamptz[])
"""
_PROMISE: Final = "SELECT promise_to_budgets(%s::uuid[], %s::bigint[], %s::numeric[], %s::bigint[])"
_SETTLE: Final = "SELECT settle_with_budgets(%s::uuid[], %s::numeric[], %s::bigint[])"
# What was spent in the period before somebody made the budget, or before its first call: of a person by UTC days, else by hours.
_COUNT_SO_FAR: Final = f"""
    UPDATE observability_budgetperiod period
    SET (spent_usd, spent_tokens) = (
        SELECT coalesce(sum(usd), 0), coalesce(sum(tokens), 0)::bigint
        FROM (
            SELECT agent, key, cost_usd AS usd, prompt_tokens + completion_tokens AS tokens FROM observability_usagehour
            WHERE period.subject_id = 0 AND hour >= period.starts_at AND hour < period.ends_at
            UNION ALL
            SELECT agent, key, cost_usd, prompt_tokens + completion_tokens FROM observability_usageperson
            WHERE period.subject_id <> 0 AND subject_id = period.subject_id
              AND day >= (period.starts_at AT TIME ZONE 'UTC')::date AND day < (period.ends_at AT TIME ZONE 'UTC')::date
            UNION ALL
            SELECT agent, key, cost_usd, prompt_tokens + completion_tokens FROM observability_attempt
            WHERE {IN_NO_SUM} AND outcome <> 'cached'
              AND started_at >= period.starts_at AND started_at < period.ends_at
              AND (period.subject_id = 0 OR subject_id = period.subject_id)
        ) AS used
        WHERE (budget.agent = '' OR used.agent = budget.agent)
          AND (budget.key = '' OR used.key = ANY(spending.keys))
    )
    FROM observability_budget budget, LATERAL (
        WITH RECURSIVE spending (key) AS (
            SELECT budget.key
            UNION
            SELECT further.key FROM spending JOIN observability_sharedbudget further ON further.payer = spending.key
        )
        SELECT array_agg(key) AS keys FROM spending
    ) AS spending
    WHERE budget.id = period.budget_id AND period.id = ANY(%s)
"""  # noqa: S608 - constants
_NOTE_REFUSALS: Final = "UPDATE observability_budgetperiod SET refused_at = clock_timestamp() WHERE id = ANY(%s)"
_LOCK_BUDGET: Final = "SELECT id FROM observability_budgetperiod WHERE budget_id = %s AND ends_at > %s ORDER BY id FOR NO KEY UPDATE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What an attempt asks budgets for: whose it is, and its worst case. `usd` None: its price is unknown."""

    attempt_id: UUID
    agent: str
    key: str
    subject_id: int
    usd: Decimal | None
    tokens: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a claim was refused.

    Attributes:
        is_spent: what is spent already leaves no room for it; otherwise only what is promised to running calls stands in the way,
            and waiting may help.
        unpriced: it has no known price, and the budget's owner wants to know what things cost.
    """

    budget: str
    resets_at: datetime
    is_spent: bool
    unpriced: bool = False


@dataclass(slots=True)
class _Row:
    """A locked period, as it stands while the claims of a batch are granted one after the other."""

    id: int
    name: str
    limit_usd: Decimal | None
    limit_tokens: int | None
    on_unknown_price: str
    ends_at: datetime
    spent_usd: Decimal
    reserved_usd: Decimal
    spent_tokens: int
    reserved_tokens: int
    refused_before: bool
    refuses_now: bool = False

    def refuses(self, claim: Claim) -> Refusal | None:
        if self.limit_usd is not None and claim.usd is None and self.on_unknown_price == OnUnknownPrice.REFUSE:
            return Refusal(budget=self.name, resets_at=self.ends_at, is_spent=True, unpriced=True)
        usd = claim.usd or Decimal(0)
        costs_nothing = claim.usd == 0 and self.limit_tokens is None
        if costs_nothing:
            return None
        is_spent = _exceeds(self.spent_usd + usd, self.limit_usd) or _exceeds(self.spent_tokens + claim.tokens, self.limit_tokens)
        is_full = _exceeds(self.spent_usd + self.reserved_usd + usd, self.limit_usd) or _exceeds(
            self.spent_tokens + self.reserved_tokens + claim.tokens, self.limit_tokens
        )
        self.refuses_now |= is_spent
        return Refusal(budget=self.name, resets_at=self.ends_at, is_spent=is_spent) if is_full else None

    def promise(self, claim: Claim) -> None:
        self.reserved_usd += claim.usd or Decimal(0)
        self.reserved_tokens += claim.tokens


_PeriodKey = tuple[int, int, datetime]


def reserve(claims: Sequence[Claim], *, budgets: Sequence[Budget]) -> list[Refusal | None]:
    """Promise each claim its worst case in every period that applies, or say which budget refuses; in the order of `claims`.

    `budgets` are the active ones, as this process last read them: which of them apply is read from it, what they allow from the
    database.
    """
    payers = payers_of({claim.key for claim in claims}) if budgets else {}
    wanted = [_periods_of(claim, [budget for budget in budgets if _applies(budget, claim, payers[claim.key])]) for claim in claims]
    if not any(wanted):
        return [None] * len(claims)
    keys = sorted({key: ends_at for periods in wanted for key, ends_at in periods.items()}.items())
    columns: list[Any] = [[key[0] for key, _ in keys], [key[1] for key, _ in keys], [key[2] for key, _ in keys], [end for _, end in keys]]
    [locked] = run_together((_LOCK, columns))
    if added := [id for id, *_, is_new in (row[:5] for row in locked) if is_new]:
        _, locked = run_together((_COUNT_SO_FAR, [added]), (_LOCK, columns))
    rows: dict[_PeriodKey, _Row] = {(row[1], row[2], row[3]): _Row(row[0], *row[5:]) for row in locked}
    refusals, promises = _grant(claims, wanted, rows)
    if promises:
        run_together(_to_store(promises))
    if refused := [row.id for row in rows.values() if row.refuses_now and not row.refused_before]:
        run_together((_NOTE_REFUSALS, [refused]))  # for the alerts
    return refusals


def _grant(
    claims: Sequence[Claim], wanted: Sequence[Mapping[_PeriodKey, datetime]], rows: Mapping[_PeriodKey, _Row]
) -> tuple[list[Refusal | None], list[tuple[Claim, _Row]]]:
    refusals: list[Refusal | None] = []
    promises: list[tuple[Claim, _Row]] = []
    for claim, periods in zip(claims, wanted, strict=True):
        own = [rows[key] for key in periods if key in rows]
        refused = [refusal for row in own if (refusal := row.refuses(claim))]
        # The one that is spent for good says more than one that is only full.
        refusals.append(max(refused, key=lambda refusal: (refusal.is_spent, refusal.resets_at)) if refused else None)
        if not refused:
            for row in own:
                row.promise(claim)
                promises.append((claim, row))
    return refusals, promises


def _to_store(promises: Sequence[tuple[Claim, _Row]]) -> Statement:
    return _PROMISE, [
        [claim.attempt_id for claim, _ in promises],
        [row.id for _, row in promises],
        [claim.usd or Decimal(0) for claim, _ in promises],
        [claim.tokens for claim, _ in promises],
    ]


def settle_reservations(spent: Mapping[UUID, tuple[Decimal, int]]) -> None:
    """Turn what was promised to attempts into what they used: by attempt, (US dollars, tokens)."""
    if spent:
        run_together((_SETTLE, [list(spent), [usd for usd, _ in spent.values()], [tokens for _, tokens in spent.values()]]))


def begin_period(budget: Budget, *, at: datetime, was_off: bool = False) -> None:
    """Count what was spent on `budget` in its present period before it was made, or while it `was_off`, so that it shows at once.

    Of a budget for each end user nothing is counted before their first call. Runs inside a transaction that the caller began.
    """
    starts_at, ends_at = period_of(budget, at)
    with connection.cursor() as cursor:
        if was_off:
            cursor.execute(_LOCK_BUDGET, [budget.pk, at])  # first: what settles meanwhile is then either in the count or added after it
            cursor.execute(_COUNT_SO_FAR, [[id for (id,) in cursor.fetchall()]])
        if budget.scope == BudgetScope.USER or not budget.is_active:
            return
        cursor.execute(_LOCK, [[budget.pk], [0], [starts_at], [ends_at]])
        if added := [row[0] for row in cursor.fetchall() if row[4]]:
            cursor.execute(_COUNT_SO_FAR, [added])


def active_budgets() -> list[Budget]:
    """Return the budgets that hold now."""
    return list(Budget.objects.filter(is_active=True).order_by("id"))


budgets_now: Final[Polled[list[Budget]]] = Polled(active_budgets, fresh_for_s=1.0)
"""The budgets that hold, as this process last read them."""


def _periods_of(claim: Claim, budgets: Sequence[Budget]) -> dict[_PeriodKey, datetime]:
    """Return the periods of `budgets` that a claim draws on, each with its end."""
    found = {}
    for budget in budgets:
        starts_at, ends_at = period_of(budget, claim.at)
        found[budget.pk, claim.subject_id if budget.scope == BudgetScope.USER else 0, starts_at] = ends_at
    return found


def _applies(budget: Budget, claim: Claim, payers: Collection[str]) -> bool:
    return budget.applies_to(claim.agent, payers=payers) and (budget.scope != BudgetScope.USER or claim.subject_id != 0)


def _exceeds(sum_: Decimal | int, limit: Decimal | int | None) -> bool:
    return limit is not None and sum_ > limit
