"""Examinations of PostgreSQL: whether it answers, what it is, and whether all is in it that has to be."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import psycopg
from django.conf import settings
from django.db import connection

from observability.connections import connection_parameters
from observability.doctor.examination import DATABASE, MIGRATIONS, READING_TABLES, Examination, Finding, in_thread, register_examination
from observability.stores import unapplied_migrations

_STATEMENTS_WITHIN_MS: Final = 4000
_OLDEST, _NEWEST = 150_000, 190_000
_TRIES: Final = 20
_OLDEST_PGVECTOR: Final = (0, 8)
_MOST_APART_S: Final = 2.0
_WORKERS_CONNECTIONS: Final = 3
# What the driver's first line says, and what helps.
_REMEDIES: Final = (
    ("password authentication failed", "Correct the user or the password in DATABASE_URL."),
    ("no pg_hba.conf entry", "Let this machine connect, with this user, in the server's pg_hba.conf; perhaps it wants ?sslmode=require."),
    ("role", "Correct the user in DATABASE_URL, or create it."),
    ("does not exist", "Correct the database's name in DATABASE_URL, or create it: CREATE DATABASE …."),
    ("onnection refused", "Start PostgreSQL, or correct host and port in DATABASE_URL."),
    ("timeout", "See that PostgreSQL runs and that no firewall is in between; correct the host in DATABASE_URL."),
    ("too many", "Raise max_connections, lower DATABASE_POOL_SIZE or WEB_CONCURRENCY, or put a pooler in front (docs/operating.md)."),
    ("translate host name", "Correct the host in DATABASE_URL."),
    ("resolve host", "Correct the host in DATABASE_URL."),
    ("SSL", "Correct sslmode in DATABASE_URL."),
)
_ABOUT: Final = """
    SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
           current_setting('default_transaction_read_only') = 'on', pg_size_pretty(pg_database_size(current_database()))
"""
_EXTENSION: Final = """
    SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'vector'
    UNION ALL SELECT extversion, NULL FROM pg_extension WHERE extname = 'vector' LIMIT 1
"""
# One that is being built now is not valid yet.
_INVALID: Final = """
    SELECT format('%I.%I', nspname, relname) FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE NOT (indisvalid AND indisready) AND nspname NOT LIKE 'pg\\_%'
      AND indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index)
    ORDER BY 1
"""
_ROOM: Final = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""


def register_postgresql_examinations() -> None:
    """Register them; observability's `ready()` calls it."""
    answers = (DATABASE,)
    for name, look, needs, remedy in (
        (DATABASE, _look_at_database, (), "See that PostgreSQL runs and answers, and that DATABASE_URL is right."),
        (MIGRATIONS, _look_at_migrations, answers, "Run `manage.py migrate`."),
        ("extension vector", _look_at_extension, answers, "Install pgvector on the database's server."),
        ("indexes", _look_at_indexes, answers, "See PostgreSQL's own log."),
        ("pooler", _look_for_pooler, answers, "See docs/hosting.md on transaction poolers."),
        ("connections", _look_at_room, READING_TABLES, "See max_connections."),
        ("clock of PostgreSQL", _look_at_clock, answers, "Let both machines keep time with NTP."),
    ):
        register_examination(Examination(name=name, run=in_thread(look), needs=needs, remedy=remedy))


@contextmanager
def _connected(*, direct: bool = False) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the doctor's own: Django's pool hides why there is none."""
    with psycopg.connect(**connection_parameters(direct=direct)) as database:
        database.execute(f"SET LOCAL statement_timeout = {_STATEMENTS_WITHIN_MS}")
        yield database


def _one(database: psycopg.Connection[Any], statement: str) -> tuple[Any, ...]:
    return database.execute(statement).fetchone() or ()


def _look_at_database() -> Sequence[Finding]:
    if not settings.DATABASES:
        return [Finding.failed("no database is named", "Set DATABASE_URL.")]
    try:
        with _connected() as database:
            number, version, is_replica, is_read_only, size = _one(database, _ABOUT)
    except psycopg.OperationalError as error:
        return [_unreachable(error, setting="DATABASE_URL")]
    if settings.DIRECT_DATABASE_URL:
        try:
            with _connected(direct=True):
                pass
        except psycopg.OperationalError as error:
            return [_unreachable(error, setting="DIRECT_DATABASE_URL")]
    connection.ensure_connection()  # looks whose database it is
    if not _OLDEST <= number < _NEWEST:
        return [Finding.failed(f"PostgreSQL {version}", "Use PostgreSQL 15 to 18.")]
    if is_replica or is_read_only:
        return [Finding.failed(f"PostgreSQL {version} takes no writes: it is a replica, or read-only", "Name the primary in DATABASE_URL.")]
    return [Finding.ok(f"PostgreSQL {version}, {size}")]


def _unreachable(error: psycopg.OperationalError, *, setting: str) -> Finding:
    said = str(error).strip() or type(error).__name__
    remedy = next((remedy for phrase, remedy in _REMEDIES if phrase in said), "See that PostgreSQL runs, and correct DATABASE_URL.")
    said = said.splitlines()[0].rpartition("FATAL:  ")[2].removeprefix("connection failed: ")
    return Finding.failed(said, remedy.replace("DATABASE_URL", setting))


def _look_at_migrations() -> Sequence[Finding]:
    if unapplied := unapplied_migrations():
        listed = ", ".join(unapplied[:3]) + (", …" if len(unapplied) > 3 else "")
        remedy = "Run `manage.py migrate`; where the release does so, see why it did not."
        return [Finding.failed(f"{len(unapplied)} not applied: {listed}", remedy)]
    return [Finding.ok("all are applied")]


def _look_at_extension() -> Sequence[Finding]:
    with _connected() as database:
        installed, available = _one(database, _EXTENSION) or (None, None)
    if installed is None and available is None:
        return [
            Finding.failed("pgvector is not installed on the server", "Install it there (Debian: postgresql-18-pgvector), then migrate.")
        ]
    if installed is None:
        return [
            Finding.failed(f"not created in this database ({available} is there)", "CREATE EXTENSION vector; as a superuser, then migrate.")
        ]
    if tuple(int(part) for part in installed.split(".")[:2]) < _OLDEST_PGVECTOR:
        return [Finding.failed(f"version {installed} is too old", "Install pgvector 0.8 or newer, then ALTER EXTENSION vector UPDATE;")]
    if available and installed != available:
        return [Finding.warning(f"version {installed}, though {available} is there", "ALTER EXTENSION vector UPDATE; as its owner.")]
    return [Finding.ok(f"version {installed}")]


def _look_at_indexes() -> Sequence[Finding]:
    with _connected() as database:
        names = [name for (name,) in database.execute(_INVALID)]
    remedy = (
        "REINDEX INDEX CONCURRENTLY {0}; if that fails, what it says stands in the index's way. One whose name ends in _ccnew is dropped."
    )
    return [Finding.failed("invalid: queries do not use it", remedy.format(name), about=name) for name in names] or [
        Finding.ok("all are valid")
    ]


def _look_for_pooler() -> Sequence[Finding]:
    pooling = _pooling(direct=False)
    if not pooling:
        return [Finding.ok("none in between")]
    if not settings.DIRECT_DATABASE_URL:
        remedy = "Set DIRECT_DATABASE_URL to the database's own address: the worker listens there, and migrations hold their lock."
        if pooling == "transaction":
            return [Finding.failed("DATABASE_URL leads through a pooler in transaction mode, and DIRECT_DATABASE_URL is not set", remedy)]
        return [Finding.ok("DATABASE_URL leads through a pooler in session mode")]
    if _pooling(direct=True) == "transaction":
        remedy = "Name the database itself, without the pooler: often another port or host."
        return [Finding.failed("DIRECT_DATABASE_URL leads through a pooler in transaction mode, too", remedy)]
    return [Finding.ok("DATABASE_URL leads through a pooler, DIRECT_DATABASE_URL past it")]


def _pooling(*, direct: bool) -> str:
    """Return how connections are pooled on the way: "transaction", "session", or "" where they are not.

    A pooler tells clients a process number of its own. In transaction mode, two clients that give back what they hold, now the one
    first and then the other, are lent each other's connections the next time, whether the pooler lends the one that came back last or
    the one that has waited longest: sooner or later, as others are at work through it, too.
    """
    parameters = connection_parameters(direct=direct)
    with psycopg.connect(**parameters) as first, psycopg.connect(**parameters) as second:
        lent = set()
        for attempt in range(_TRIES):
            [own] = _one(first, "SELECT pg_backend_pid()")
            if own == first.info.backend_pid:
                return ""
            lent.add((own, *_one(second, "SELECT pg_backend_pid()")))
            if len(lent) > 1:
                return "transaction"
            for client in (first, second) if attempt % 2 == 0 else (second, first):
                client.rollback()
        return "session"


def _look_at_room() -> Sequence[Finding]:
    with _connected(direct=True) as database:
        room, used = _one(database, _ROOM)
    pool = settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"]
    wanted = settings.WEB_CONCURRENCY * pool + pool + _WORKERS_CONNECTIONS
    seen = f"{used} of {room} are used; one server of WEB_CONCURRENCY={settings.WEB_CONCURRENCY} and a worker open up to {wanted}"
    if wanted > room and not settings.DIRECT_DATABASE_URL:
        remedy = "Lower DATABASE_POOL_SIZE or WEB_CONCURRENCY, raise max_connections, or put a pooler in front (docs/operating.md)."
        return [Finding.warning(seen, remedy)]
    return [Finding.ok(seen)]


def _look_at_clock() -> Sequence[Finding]:
    with _connected() as database:
        began = time.time()
        [theirs] = _one(database, "SELECT clock_timestamp()")
        return [apart(theirs, began=began, ended=time.time())]


def apart(theirs: datetime, *, began: float, ended: float) -> Finding:
    """Say how far a clock that was read between two moments of ours (seconds since 1970) is from ours."""
    difference_s = max(began - theirs.timestamp(), theirs.timestamp() - ended, 0.0)
    if difference_s > _MOST_APART_S:
        remedy = "Let both machines keep time with NTP: expiries, limits and budgets go by these clocks."
        return Finding.failed(f"{difference_s:.1f} s apart from this machine's", remedy)
    return Finding.ok("the same as this machine's")
