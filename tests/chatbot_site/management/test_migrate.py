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
    told = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0], told
    assert sum("No migrations to apply" in text for text in told) == 3
