"""The role under which memories are written and recalled, as migrations make it for a managed database's user."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from django.db import connection

pytestmark = pytest.mark.django_db
MAKE_ROLE = import_module("memory.migrations.0004_facts_summaries_and_isolation").MAKE_ROLE


@pytest.mark.parametrize("kind", ["SUPERUSER", "CREATEROLE BYPASSRLS", "CREATEROLE"])
def test_whoever_may_make_the_role_may_take_it(kind):
    # Roles belong to the whole server, so the test makes one of another name; all of it ends with the transaction.
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE a_database_user NOLOGIN {kind}")
        cursor.execute("GRANT USAGE, CREATE ON SCHEMA public TO a_database_user")
        for table in set(re.findall(r"memory_\w+", MAKE_ROLE)):
            cursor.execute(f"ALTER TABLE {table} OWNER TO a_database_user")
        cursor.execute("SET LOCAL ROLE a_database_user")
        cursor.execute(MAKE_ROLE.replace("chatbot_app", "an_app_of_theirs"))
        cursor.execute("SET LOCAL ROLE an_app_of_theirs")
        cursor.execute("SELECT count(*) FROM memory_passage")
        cursor.execute("RESET ROLE")
        # What counts is whether the user itself may take it, not the superuser whom the tests connect as.
        cursor.execute(
            "SELECT pg_has_role('a_database_user', 'an_app_of_theirs', "
            "CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)"
        )
        assert cursor.fetchone() == (True,)
