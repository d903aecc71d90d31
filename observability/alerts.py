"""Telling that a budget passes 50, 80 and 100 %: once for each threshold and period, to the log and to ALERT_WEBHOOK_URL.

What was told is a number in the period's row, raised only after the target took the notice, so none is lost while the target is away.
Meanwhile the row is marked as being told of, so several workers tell once. Only a process that dies between the two tells twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

import httpx2
import structlog
from django.conf import settings
from django.db import connection

from observability.bursts import run_burst
from observability.outbound import new_client
from observability.rounds import keep_doing

log = structlog.get_logger(__name__)

THRESHOLDS: Final = (50, 80, 100)
_LOOK_EVERY_S: Final = 10.0
_TIMEOUT: Final = httpx2.Timeout(10.0)
# A message holds so many notices at most, of 350 characters each at the very most: Discord takes 2000 characters.
_MOST_LINES: Final = 5
# How long a worker may take to tell; after that another one tries.
_LEASE: Final = "60 seconds"

# The share of a budget that is spent, in percent, of money or tokens, whichever is further. A budget that refuses a call because what is
# left does not cover it counts as spent, until somebody changes it.
_IS_REFUSING: Final = "(period.refused_at IS NOT NULL AND period.refused_at >= budget.updated_at)"
_SHARE: Final = f"""
    CASE WHEN {_IS_REFUSING} THEN 100 ELSE greatest(
        coalesce(period.spent_usd * 100 / nullif(budget.limit_usd, 0), 0),
        coalesce(period.spent_tokens * 100.0 / nullif(budget.limit_tokens, 0), 0)
    ) END
"""
_LEVEL: Final = "CASE " + " ".join(f"WHEN {_SHARE} >= {percent} THEN {percent}" for percent in reversed(THRESHOLDS)) + " ELSE 0 END"
_CURRENT: Final = """
    FROM observability_budgetperiod period JOIN observability_budget budget ON budget.id = period.budget_id AND budget.is_active
    WHERE period.starts_at <= now() AND period.ends_at > now() AND (period.telling_until IS NULL OR period.telling_until < now())
"""
# Rows that calls hold at this moment are passed over until the next look: nothing here waits for them, or makes them wait.
_LOWER: Final = f"""
    UPDATE observability_budgetperiod period SET told_percent = lower.level
    FROM (
        SELECT period.id, {_LEVEL} AS level {_CURRENT} AND period.told_percent > {_LEVEL} FOR NO KEY UPDATE OF period SKIP LOCKED
    ) AS lower
    WHERE period.id = lower.id
"""  # noqa: S608 - constants
_TAKE: Final = f"""
    UPDATE observability_budgetperiod period SET telling_until = now() + interval '{_LEASE}'
    FROM (
        SELECT period.id, {_LEVEL} AS level, {_IS_REFUSING} AS is_refusing, budget.name, budget.limit_usd,
               budget.limit_tokens, budget.time_zone
        {_CURRENT} AND period.told_percent < {_LEVEL}
        ORDER BY period.id LIMIT {_MOST_LINES} FOR NO KEY UPDATE OF period SKIP LOCKED
    ) AS due
    WHERE period.id = due.id
    RETURNING period.id, due.level, due.is_refusing, due.name, due.time_zone, period.subject_id, due.limit_usd, period.spent_usd,
              due.limit_tokens, period.spent_tokens, period.ends_at
"""  # noqa: S608 - constants
_LOCK: Final = "SELECT FROM observability_budgetperiod WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
_NOTE: Final = """
    UPDATE observability_budgetperiod period SET telling_until = NULL, told_percent = greatest(period.told_percent, told.percent)
    FROM unnest(%s::bigint[], %s::int[]) AS told (id, percent) WHERE period.id = told.id
"""


class NotTold(Exception):
    """The target did not take a notice."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A budget that passed a threshold, and how it stands. `subject_id`: whose, of a budget for each end user, else 0."""

    period_id: int
    percent: int
    is_refusing: bool
    budget: str
    time_zone: str
    subject_id: int
    limit_usd: Decimal | None
    spent_usd: Decimal
    limit_tokens: int | None
    spent_tokens: int
    resets_at: datetime

    def __str__(self) -> str:
        whose = f" of person #{self.subject_id}" if self.subject_id else ""
        standing = "calls are refused now" if self.is_refusing else f"{self.percent} % is spent"
        used = []
        if self.limit_usd is not None:
            used.append(f"{self.spent_usd:.2f} of {self.limit_usd:.2f} USD")
        if self.limit_tokens is not None:
            used.append(f"{self.spent_tokens:,} of {self.limit_tokens:,} tokens")
        resets = self.resets_at.astimezone(ZoneInfo(self.time_zone))
        return f"Budget “{self.budget}”{whose}: {standing} ({', '.join(used)}). It resets on {resets:%d %b %Y, %H:%M} ({self.time_zone})."


async def keep_telling_of_budgets(stopping: asyncio.Event, *, every_s: float = _LOOK_EVERY_S) -> None:
    """Tell of budgets that pass a threshold until `stopping` is set. A target that is away is tried again."""
    async with new_client() as client:

        async def step() -> None:
            await tell_of_budgets(client)

        await keep_doing(stopping, step, every_s=every_s, what="telling of budgets", queue="alerts")


async def tell_of_budgets(client: httpx2.AsyncClient) -> int:
    """Tell of every budget that passed a threshold since it was last told of, and return how many.

    Raises:
        NotTold: the target did not take the notices; they are due again.
    """
    told = 0
    while notices := await run_burst(_take):
        was_told = False
        try:
            await _post(client, notices)
            was_told = True
        finally:
            await run_burst(_note, notices, was_told)
        told += len(notices)
    return told


def _take() -> list[Notice]:
    with connection.cursor() as cursor:
        cursor.execute(_LOWER)  # spending only grows, so a lower level means a higher limit: its thresholds are told anew
        cursor.execute(_TAKE)
        return sorted((Notice(*row) for row in cursor.fetchall()), key=lambda notice: (notice.budget, notice.subject_id))


def _note(notices: Sequence[Notice], was_told: bool) -> None:
    with connection.cursor() as cursor:
        ids = [notice.period_id for notice in notices]
        cursor.execute(_LOCK, [ids])
        cursor.execute(_NOTE, [ids, [notice.percent if was_told else 0 for notice in notices]])


async def _post(client: httpx2.AsyncClient, notices: Sequence[Notice]) -> None:
    if settings.ALERT_WEBHOOK_URL:
        name = f"[{settings.ENVIRONMENT_NAME}] " if settings.ENVIRONMENT_NAME else ""
        text = name + "\n".join(map(str, notices))
        try:
            # Slack reads the one, Discord the other.
            response = await client.post(settings.ALERT_WEBHOOK_URL, json={"text": text, "content": text}, timeout=_TIMEOUT)
        except httpx2.HTTPError as error:
            raise NotTold(f"the alert target could not be reached: {type(error).__name__}") from error
        if not response.is_success:
            raise NotTold(f"the alert target answered {response.status_code}")
    for notice in notices:
        log.warning("budget passed a threshold", budget=notice.budget, percent=notice.percent, person=notice.subject_id or None)
