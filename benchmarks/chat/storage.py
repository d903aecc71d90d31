"""A database of the benchmark's own, the agent in it, and what is stored of its turns."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import sql

from . import wire

PROJECT_DIR = Path(__file__).resolve().parent.parent.parent
AGENT = "bench"

# Run in a process of its own, so that this one needs no Django.
_MAKE_AGENT = """
import sys
import django
django.setup()
from agents.models import Provider
from agents.versions.drafts import create_agent
from agents.versions.publishing import publish
slug, base_url = sys.argv[1:]
provider = Provider.objects.create(slug="bench", base_url=base_url, default_model="bench")
agent = create_agent(slug=slug, name="Bench", author=None, system_prompt="You are a benchmark. Answer as you always do.",
                     provider=provider, reply_cache_s=0)
publish(agent.versions.get(), actor=None)
"""


class Storage:
    """A fresh database beside the one of `database_url`, migrated, with one published agent."""

    def __init__(self, database_url: str, environment: dict[str, str], *, upstream_url: str) -> None:
        self._server_url = database_url
        self._name = f"benchmark_{secrets.token_hex(4)}"
        self.url = urlunsplit(urlsplit(database_url)._replace(path=f"/{self._name}"))
        self.environment = {**environment, "DATABASE_URL": self.url}
        self._upstream_url = upstream_url

    def create(self) -> None:
        """Make the database and what is in it.

        Raises:
            psycopg.Error: the role may not create databases.
        """
        self._on_server(sql.SQL("CREATE DATABASE {}"))
        for command in (["manage.py", "migrate", "--verbosity", "0"], ["-c", _MAKE_AGENT, AGENT, self._upstream_url]):
            subprocess.run([sys.executable, *command], check=True, cwd=PROJECT_DIR, env=self.environment)

    def drop(self) -> None:
        self._on_server(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)"))

    def turns(self, agent: str = AGENT) -> dict[str, int]:
        """Return how many turns of `agent` are stored in each state; `done` counts only those with the exact reply."""
        with psycopg.connect(self.url) as connection:
            rows = connection.execute(
                "SELECT CASE WHEN state = 'done' AND reply <> %s THEN 'done with a wrong reply' ELSE state END, count(*)"
                " FROM memory_turn WHERE agent = %s GROUP BY 1",
                [wire.TEXT, agent],
            ).fetchall()
        return {str(state): int(count) for state, count in rows}

    def about(self) -> str:
        """Return the database's version and whether its commits are durable."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')"
            ).fetchone()
        assert row is not None
        return f"PostgreSQL {row[0]}, fsync {row[1]}, synchronous_commit {row[2]}"

    def process(self) -> psutil.Process | None:
        """Return the database server's process where it runs on this machine."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
            assert row is not None
            try:
                backend = psutil.Process(row[0])
                return backend.parent() if "postgres" in backend.name() else None
            except psutil.Error:
                return None

    def _on_server(self, statement: sql.SQL) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(self._name)))


def redis_process(redis_url: str) -> psutil.Process | None:
    """Return Redis's process where it runs on this machine."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        try:
            found = psutil.Process(int(client.info("server")["process_id"]))
            return found if {"redis", "valkey"} & set(found.name().replace("-", " ").split()) else None
        except (psutil.Error, redis.RedisError):
            return None


@contextmanager
def fresh_storage(database_url: str, environment: dict[str, str], *, upstream_url: str) -> Iterator[Storage]:
    """Create a `Storage` on the server of `database_url` and drop it in the end."""
    storage = Storage(database_url, environment, upstream_url=upstream_url)
    try:
        storage.create()
        yield storage
    finally:
        storage.drop()
