"""What is wrong at this moment: one short question to the database for each kind of trouble. All of it is read from PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection

from observability.queues import jobs_waiting

MOST: Final = 5000
"""So many subjects of a rule are looked at; of a budget for each end user there may be more."""
# Of fewer turns a share or a percentile says nothing.
_ENOUGH_TURNS: Final = 5
_ENOUGH_ANSWERS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a rule wants to know: what is beyond `threshold` within `window` before `now`."""

    now: datetime
    threshold: float
    window: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Something that is wrong.

    Attributes:
        subject: what tells it from other troubles of its rule.
        name: what people call that.
        text: how it is, in a sentence.
        level: of trouble that comes in steps: the one it is at.
    """

    subject: str
    name: str
    text: str
    value: float
    level: int = 0


def find_errors(asked: Asked) -> list[Seen]:
    """Agents of whose turns too many failed. A turn that a fallback answered is no failure, nor one that its client left.

    A call that was promised and not made, as of a model that is left alone, is cancelled, too, but took no time.
    """
    statement = """
        SELECT agent, count(*), count(*) FILTER (WHERE is_failed) FROM (
            SELECT agent, bool_or(outcome IN ('failed', 'interrupted', 'orphaned') OR error_code <> '')
                AND NOT bool_or(outcome IN ('done', 'cached') OR outcome = 'cancelled' AND latency_ms IS NOT NULL) AS is_failed
            FROM observability_attempt
            WHERE id >= %(since_id)s AND kind = 'chat' AND turn_id IS NOT NULL
            GROUP BY agent, turn_id HAVING NOT bool_or(outcome = 'running')
        ) AS turn
        GROUP BY agent HAVING count(*) >= %(enough)s AND count(*) FILTER (WHERE is_failed) * 100.0 / count(*) >= %(threshold)s
    """
    return [
        Seen(
            subject=agent,
            name=f"agent {agent}",
            value=failed * 100 / turns,
            text=f"Agent {agent}: {failed:,} of {turns:,} turns failed ({failed * 100 / turns:.0f} %) in {_words(asked.window)}.",
        )
        for agent, turns, failed in _rows(statement, asked, enough=_ENOUGH_TURNS)
    ]


def find_providers_down(asked: Asked) -> list[Seen]:
    """Providers at which so many turns or jobs failed, however often each was tried, and not one call was answered."""
    statement = """
        SELECT provider, count(*), mode() WITHIN GROUP (ORDER BY error_code) FROM observability_attempt
        WHERE id >= %(since_id)s AND provider <> ''
          AND (outcome = 'done' OR error_code IN ('upstream-failed', 'upstream-timed-out'))
        GROUP BY provider HAVING count(DISTINCT coalesce(turn_id, id)) >= %(threshold)s AND NOT bool_or(outcome = 'done')
    """
    return [
        Seen(
            subject=provider,
            name=f"provider {provider}",
            value=calls,
            text=f"Provider {provider}: all {calls:,} calls in {_words(asked.window)} failed, most with {code}.",
        )
        for provider, calls, code in _rows(statement, asked)
    ]


def find_open_breakers(asked: Asked) -> list[Seen]:
    """Breakers that have been open for so many minutes; not those of which no process has told anything within the window."""
    statement = """
        SELECT provider, model, opened_at, reason FROM observability_breaker
        WHERE closed_at IS NULL AND seen_at >= %(since)s AND opened_at <= %(now)s - make_interval(secs => %(threshold)s * 60)
    """
    return [
        Seen(
            subject=f"{provider}/{model}"[:200],
            name=f"{model} at {provider}",
            value=(asked.now - opened_at) / timedelta(minutes=1),
            text=f"{model} at {provider} is not called since {opened_at:%H:%M} UTC{f' ({reason})' if reason else ''}.",
        )
        for provider, model, opened_at, reason in _rows(statement, asked)
    ]


def find_slowness(asked: Asked) -> list[Seen]:
    """Agents whose first words come late: later than so many seconds for one answer in twenty."""
    statement = """
        SELECT agent, count(*), percentile_disc(0.95) WITHIN GROUP (ORDER BY coalesce(first_token_ms, latency_ms)) / 1000.0 AS p95
        FROM observability_attempt
        WHERE id >= %(since_id)s AND kind = 'chat' AND outcome = 'done' AND coalesce(first_token_ms, latency_ms) IS NOT NULL
        GROUP BY agent
        HAVING count(*) >= %(enough)s
           AND percentile_disc(0.95) WITHIN GROUP (ORDER BY coalesce(first_token_ms, latency_ms)) >= %(threshold)s * 1000
    """
    return [
        Seen(
            subject=agent,
            name=f"agent {agent}",
            value=float(p95),
            text=f"Agent {agent}: one in twenty of {answers:,} answers began after {p95:.1f} s or more, in {_words(asked.window)}.",
        )
        for agent, answers, p95 in _rows(statement, asked, enough=_ENOUGH_ANSWERS)
    ]


def find_late_queues(asked: Asked) -> list[Seen]:
    """Queues whose oldest job has waited for so many minutes."""
    found = []
    for waiting in jobs_waiting():
        minutes = (asked.now - waiting.since) / timedelta(minutes=1) if waiting.since else 0.0
        if waiting.since and minutes >= asked.threshold:
            jobs = f"{waiting.jobs:,} {'job' if waiting.jobs == 1 else 'jobs'}"
            text = f"Queue {waiting.queue}: the oldest of {jobs} has waited since {waiting.since:%d %b, %H:%M} UTC ({minutes:.0f} min)."
            found.append(Seen(subject=waiting.queue, name=f"queue {waiting.queue}", value=minutes, text=text))
    return found


def find_traffic(asked: Asked) -> list[Seen]:
    """More turns a minute than so many."""
    statement = """
        SELECT count(*) FROM observability_attempt
        WHERE id >= %(since_id)s AND kind = 'chat' AND number = 1
        HAVING count(*) / (extract(epoch FROM %(now)s - %(since)s) / 60) >= %(threshold)s
    """
    found = []
    for (turns,) in _rows(statement, asked):
        a_minute = turns / (asked.window / timedelta(minutes=1))
        text = f"{a_minute:,.0f} turns a minute in {_words(asked.window)}."
        found.append(Seen(subject="all", name="all agents together", value=a_minute, text=text))
    return found


def find_failed_jobs(asked: Asked) -> list[Seen]:
    """Background work that failed so many times. Evaluations have a rule of their own."""
    statement = """
        SELECT queue, count(*), mode() WITHIN GROUP (ORDER BY error) FROM observability_jobfailure
        WHERE at >= %(since)s AND queue <> 'evaluation' GROUP BY queue HAVING count(*) >= %(threshold)s
    """
    return [
        Seen(
            subject=queue,
            name=f"background work {queue}",
            value=times,
            text=f"Background work “{queue}” failed {_times(times)} in {_words(asked.window)}, mostly with {error}.",
        )
        for queue, times, error in _rows(statement, asked)
    ]


def find_failed_evaluations(asked: Asked) -> list[Seen]:
    """Evaluations that failed: calls made for them, or the work itself."""
    statement = """
        SELECT agent, count(*) FROM (
            SELECT agent FROM observability_attempt
            WHERE id >= %(since_id)s AND kind = 'evaluation' AND outcome IN ('failed', 'interrupted', 'orphaned')
            UNION ALL
            SELECT '' FROM observability_jobfailure WHERE at >= %(since)s AND queue = 'evaluation'
        ) AS failure
        GROUP BY agent HAVING count(*) >= %(threshold)s
    """
    found = []
    for agent, times in _rows(statement, asked):
        name = f"evaluations of agent {agent}" if agent else "evaluations"
        text = f"{name[0].upper()}{name[1:]} failed {_times(times)} in {_words(asked.window)}."
        found.append(Seen(subject=agent or "work", name=name, value=times, text=text))
    return found


def find_spent_budgets(asked: Asked) -> list[Seen]:
    """Budgets of which a step of 50, 80 or 100 % is spent, of money or tokens, whichever is further.

    A budget that refuses a call because what is left does not cover it counts as spent, until somebody changes it.
    """
    statement = """
        SELECT * FROM (
            SELECT budget.id, period.subject_id, period.starts_at, period.ends_at, budget.name, budget.time_zone, budget.limit_usd,
                   period.spent_usd, budget.limit_tokens, period.spent_tokens, refusing.now,
                   CASE WHEN refusing.now THEN 100 ELSE greatest(
                       coalesce(period.spent_usd * 100 / nullif(budget.limit_usd, 0), 0),
                       coalesce(period.spent_tokens * 100.0 / nullif(budget.limit_tokens, 0), 0)
                   ) END AS share
            FROM observability_budgetperiod period
            JOIN observability_budget budget ON budget.id = period.budget_id AND budget.is_active,
            LATERAL (SELECT coalesce(period.refused_at >= budget.updated_at, false) AS now) AS refusing
            WHERE period.starts_at <= %(now)s AND period.ends_at > %(now)s
        ) AS standing
        WHERE share >= greatest(%(threshold)s, 50) ORDER BY share DESC, 1, 2 LIMIT %(most)s
    """
    return [_spent(*row) for row in _rows(statement, asked, most=MOST)]


def _spent(
    budget_id: int, subject_id: int, starts_at: datetime, ends_at: datetime, budget: str, time_zone: str, limit_usd: Decimal | None,
    spent_usd: Decimal, limit_tokens: int | None, spent_tokens: int, is_refusing: bool, share: Decimal,
) -> Seen:  # fmt: skip
    name = f"Budget “{budget}”" + (f" of person #{subject_id}" if subject_id else "")
    level = next(step for step in (100, 80, 50) if share >= step)
    used = []
    if limit_usd is not None:
        used.append(f"{spent_usd:.2f} of {limit_usd:.2f} USD")
    if limit_tokens is not None:
        used.append(f"{spent_tokens:,} of {limit_tokens:,} tokens")
    standing = "calls are refused now" if is_refusing else f"{level} % is spent"
    resets = f"It resets on {ends_at.astimezone(ZoneInfo(time_zone)):%d %b %Y, %H:%M} ({time_zone})."
    return Seen(
        subject=f"{budget_id}/{subject_id}/{starts_at.astimezone(UTC):%Y-%m-%dT%H:%M}",
        name=name,
        text=f"{name}: {standing} ({', '.join(used)}). {resets}",
        value=float(share),
        level=level,
    )


def _rows(statement: str, asked: Asked, **more: Any) -> list[tuple[Any, ...]]:
    since = asked.now - asked.window
    # Ids tell the time (UUIDv7), and their index is there already.
    since_id = UUID(int=int(since.timestamp() * 1000) << 80)
    with connection.cursor() as cursor:
        cursor.execute(statement, {"now": asked.now, "since": since, "since_id": since_id, "threshold": asked.threshold, **more})
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _times(times: int) -> str:
    return "once" if times == 1 else f"{times:,} times"


def _words(window: timedelta) -> str:
    minutes = window / timedelta(minutes=1)
    return f"the last {minutes:.0f} minutes" if minutes >= 2 else f"the last {window.total_seconds():.0f} seconds"
