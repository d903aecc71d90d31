"""Several statements in one round trip: on a busy server each wait for PostgreSQL costs a thread more than the statement itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection

Statement = tuple[str, Sequence[Any]]
"""A statement and its values."""


def run_together(*statements: Statement) -> list[list[tuple[Any, ...]]]:
    """Run `statements` one after the other, each seeing what those before it did, and return the rows of each.

    Values are bound by the client, as everywhere in Django, so one message holds them all. The first that fails ends them.
    """
    with connection.cursor() as cursor:
        cursor.execute(";".join(text for text, _ in statements), [value for _, values in statements for value in values])
        found = [_rows_of(cursor)]
        while cursor.nextset():
            found.append(_rows_of(cursor))
    return found


def _rows_of(cursor: Any) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []
