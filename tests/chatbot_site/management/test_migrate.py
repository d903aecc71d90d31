"""Several servers that are started at once, each of which migrates first."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from observability.api import connection_parameters
from tests.factories import unique

PROJECT_DIR = Path(__file__).resolve().parents[3]


@pytest.fixture
def empty_database(db: None) -> Iterator[str]:
    """The URL of a database of its own, with nothing in it."""
    name = unique("migrated").replace("-", "_")
    with psycopg.connect(**connection_parameters(), autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield os.environ["DATABASE_URL"].rpartition("/")[0] + f"/{name}"
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_processes_that_migrate_at_once_take_turns(empty_database):
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "1"]
    environment = {**os.environ, "DATABASE_URL": empty_database}
    running = [
        subprocess.Popen(command, cwd=PROJECT_DIR, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(4)
    ]
    told = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0], told
    assert sum("No migrations to apply" in text for text in told) == 3


def test_an_index_whose_building_was_broken_off_is_built_again(empty_database):
    def migrate(*to):
        command = [sys.executable, "manage.py", "migrate", *to]
        done = subprocess.run(
            command, cwd=PROJECT_DIR, env={**os.environ, "DATABASE_URL": empty_database}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr

    def indexes():
        return set(database.execute(_INDEXES).fetchall())

    migrate()
    migrate("memory", "0011")
    where = {**connection_parameters(), "dbname": empty_database.rpartition("/")[2]}
    with psycopg.connect(**where, autocommit=True) as database:
        assert indexes() == {("passage_place_once", True)}
        database.execute("CREATE INDEX turn_broken ON memory_turn (agent)")
        database.execute("CREATE INDEX passage_in_order ON memory_passage (owner_id)")
        database.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'passage_in_order'::regclass")
        migrate("memory", "0013")
        built = indexes()
        assert built == {("turn_broken", False), ("passage_in_order", True)}
        database.execute("DELETE FROM django_migrations WHERE app = 'memory' AND name LIKE '0013%'")
        migrate("memory", "0013")
        assert indexes() == built


_INDEXES = """
    SELECT relname, indisunique FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indisvalid AND relname IN ('turn_broken', 'passage_in_order', 'passage_place_once')
"""
