"""What Prometheus is told when it asks: what this server's processes counted, and how things stand in the database now.

The database is asked for at most a second. Where it does not answer, its part is left out and the rest is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db import Error as DatabaseError  # unlike its namesake in Django, with InterfaceError
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from django_prometheus.exports import ExportToDjangoView
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from observability import metrics
from observability.bursts import run_burst
from observability.queues import Waiting, jobs_waiting
from observability.slots import folder, forget_the_dead

_DEADLINE_S: Final = 1.0
_MEASURE_EVERY_S: Final = 5.0
# A budget that refuses calls, because what is left does not cover them, counts as spent until somebody changes it.
_BUDGETS: Final = """
    SELECT budget.name, greatest(
        coalesce(max(period.spent_usd / nullif(budget.limit_usd, 0)), 0),
        coalesce(max(period.spent_tokens / nullif(budget.limit_tokens, 0)::numeric), 0),
        CASE WHEN bool_or(period.refused_at >= budget.updated_at) THEN 1 ELSE 0 END
    )
    FROM observability_budget budget LEFT JOIN observability_budgetperiod period
      ON period.budget_id = budget.id AND period.starts_at <= now() AND period.ends_at > now()
    WHERE budget.is_active GROUP BY budget.id
"""


def may_scrape(authorization: str) -> bool:
    """Tell whether a request with this Authorization header may read the metrics."""
    token: str = settings.METRICS_TOKEN
    if not token:
        return not settings.METRICS_NEED_TOKEN
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and constant_time_compare(given.strip(), token)


async def expose() -> tuple[bytes, str]:
    """Return all metrics in Prometheus' text format, and its content type."""
    standing = await _read_standing()
    measure_pool()
    return await asyncio.to_thread(_write, standing)


def _write(standing: Sequence[Metric]) -> tuple[bytes, str]:
    if (path := folder()) is not None:
        forget_the_dead(path)
    page = ExportToDjangoView(HttpRequest())
    return page.content + generate_latest(_Standing(standing)), page["Content-Type"]


class _Standing:
    """What was read of the database, as prometheus_client wants it."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _read_standing() -> list[Metric]:
    try:
        async with asyncio.timeout(_DEADLINE_S):
            queues, budgets = await run_burst(_read_database)
    except (DatabaseError, TimeoutError):
        return standing_metrics(is_up=False)
    return standing_metrics(queues, budgets)


def standing_metrics(queues: Sequence[Waiting] = (), budgets: Sequence[tuple[str, Decimal]] = (), *, is_up: bool = True) -> list[Metric]:
    """Return the metrics that are read when scraped; `budgets`: of each its name, and the share of it that is spent."""
    up = GaugeMetricFamily("chatbot_database_up", "Whether PostgreSQL answered this scrape within a second.", value=float(is_up))
    waiting = GaugeMetricFamily("chatbot_jobs_waiting", "Jobs that are due and wait for a worker.", labels=["queue"])
    oldest = GaugeMetricFamily("chatbot_jobs_oldest_seconds", "For how long the first job of a queue has been due.", labels=["queue"])
    used = GaugeMetricFamily("chatbot_budget_used_ratio", "The share of a budget that is spent in its current period.", labels=["budget"])
    now = datetime.now(UTC)
    for queue in queues:
        waiting.add_metric([queue.queue], queue.jobs)
        oldest.add_metric([queue.queue], max(0.0, (now - queue.since).total_seconds()) if queue.since else 0)
    for name, share in budgets:
        used.add_metric([name], float(share))
    return [up, waiting, oldest, used]


def _read_database() -> tuple[list[Waiting], list[tuple[str, Decimal]]]:
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {round(_DEADLINE_S * 1000)}")
        queues = jobs_waiting()
        cursor.execute(_BUDGETS)
        return queues, cursor.fetchall()


async def keep_measuring() -> None:
    """Show the state of this process's database pool, every few seconds, until cancelled."""
    while True:
        measure_pool()
        await asyncio.sleep(_MEASURE_EVERY_S)


def measure_pool() -> None:
    """Show the state of this process's database pool now."""
    pool = getattr(connections[DEFAULT_DB_ALIAS], "pool", None)
    if pool is None:
        return
    found = pool.get_stats()
    idle = found.get("pool_available", 0)
    metrics.pool_connections.of("idle").set(idle)
    metrics.pool_connections.of("busy").set(max(0, found.get("pool_size", 0) - idle))
    metrics.pool_waiting.set(found.get("requests_waiting", 0))
    metrics.pool_limit.set(found.get("pool_max", 0))
