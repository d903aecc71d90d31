"""A server of one environment refuses another's database: it does not start, and no command reads or changes anything."""

from __future__ import annotations

import shlex
import subprocess

import psycopg
import pytest

from chatbot_site.settings.environment import PROJECT_DIR
from tests.ports import free_port

PROCFILE = dict(line.split(": ", 1) for line in (PROJECT_DIR / "Procfile").read_text().splitlines())
BELONGS = "belongs to the environment 'production', and this is the environment 'staging': nothing was read or changed."


@pytest.fixture
def productions_database(new_database, production, manage):
    url = new_database()
    done = manage(production(DATABASE_URL=url, ENVIRONMENT_NAME="production"), "migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    return url


def stamp(url):
    with psycopg.connect(url) as database:
        return database.execute("SELECT environment FROM chatbot_site_databasestamp").fetchall()


def test_staging_gets_nothing_of_productions_database(productions_database, production, manage):
    assert stamp(productions_database) == [("production",)]
    staging = production(DATABASE_URL=productions_database, RAILWAY_ENVIRONMENT_NAME="staging")
    for command in (["migrate"], ["setup", "--no-examples"], ["worker"], ["keys", "list"]):
        done = manage(staging, *command)
        assert done.returncode != 0, command
        assert BELONGS in done.stderr
        assert "Traceback" not in done.stderr
    web = subprocess.run(
        shlex.split(PROCFILE["web"]),
        cwd=PROJECT_DIR,
        env=staging | {"PORT": str(free_port()), "WEB_CONCURRENCY": "2"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert web.returncode != 0
    assert BELONGS in web.stdout + web.stderr
    assert stamp(productions_database) == [("production",)]
    assert manage(production(DATABASE_URL=productions_database, ENVIRONMENT_NAME="production"), "keys", "list").returncode == 0
    unnamed = manage(production(DATABASE_URL=productions_database), "keys", "list")
    assert "belongs to the environment 'production', and this is without ENVIRONMENT_NAME" in unnamed.stderr


def test_a_restored_copy_is_adopted(productions_database, production, manage):
    staging = production(DATABASE_URL=productions_database, ENVIRONMENT_NAME="staging")
    wrong = manage(staging, "adopt_database", "--from", "prod")
    assert wrong.returncode != 0
    assert "belongs to 'production', not to 'prod'" in wrong.stderr
    done = manage(staging, "adopt_database", "--from", "production")
    assert done.returncode == 0, done.stderr
    assert "belongs to 'staging' now" in done.stdout
    assert stamp(productions_database) == [("staging",)]
    assert manage(staging, "migrate", "--verbosity", "0").returncode == 0
    assert manage(production(DATABASE_URL=productions_database, ENVIRONMENT_NAME="production"), "keys", "list").returncode != 0


def test_a_database_without_a_name_is_anybodys_until_it_is_migrated_with_one(new_database, production, manage):
    url = new_database()
    assert manage(production(DATABASE_URL=url), "migrate", "--verbosity", "0").returncode == 0
    assert stamp(url) == []
    named = production(DATABASE_URL=url, ENVIRONMENT_NAME="demo")
    assert manage(named, "keys", "list").returncode == 0
    assert "no stamp yet" in manage(named, "adopt_database", "--from", "production").stderr
    assert manage(named, "migrate", "--verbosity", "0").returncode == 0
    assert stamp(url) == [("demo",)]


def test_an_environment_without_a_name_adopts_nothing(production, manage):
    done = manage(production(DATABASE_URL="postgres://127.0.0.1:9/x"), "adopt_database", "--from", "production")
    assert "ENVIRONMENT_NAME is not set" in done.stderr
