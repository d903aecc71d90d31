"""Health of the stores: PostgreSQL with every migration applied, and Redis."""

from __future__ import annotations

from typing import Final

import redis.asyncio
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from observability.bursts import run_burst
from observability.health import HealthCheck, Unhealthy, register_health_check

_TIMEOUT_S: Final = 1.0
_DATABASE_REMEDY: Final = "See docs/runbooks/postgresql_down.md."
_CACHE_REMEDY: Final = "See whether Redis runs and REDIS_URL names it. Chat answers without it: limits are counted by each process alone."


def register_store_checks() -> None:
    """Register the checks of both stores; observability's `ready()` calls it."""
    register_health_check(HealthCheck("database", _check_database, remedy=_DATABASE_REMEDY))
    register_health_check(HealthCheck("migrations", _check_migrations, remedy=_DATABASE_REMEDY))
    # Redis holds only what may be lost, and chat answers without it: a failure there must not take every replica away.
    register_health_check(HealthCheck("cache", _check_cache, required=False, remedy=_CACHE_REMEDY))


async def _check_database() -> None:
    await run_burst(_select_one)


def _select_one() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


_migrated = False


async def _check_migrations() -> None:
    # Once all are applied they stay so for the life of this process's code.
    global _migrated
    if not _migrated:
        await run_burst(_find_unapplied)
        _migrated = True


def _find_unapplied() -> None:
    if unapplied := unapplied_migrations():
        raise Unhealthy(f"{len(unapplied)} migrations are not applied; run manage.py migrate")


def unapplied_migrations() -> list[str]:
    """Return what `manage.py migrate` would apply, such as "memory.0007_names_of_people"."""
    executor = MigrationExecutor(connection)
    return [f"{step.app_label}.{step.name}" for step, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]


async def _check_cache() -> None:
    client = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=_TIMEOUT_S, socket_timeout=_TIMEOUT_S)
    try:
        await client.ping()
    finally:
        await client.aclose()
