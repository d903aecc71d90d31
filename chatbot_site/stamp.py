"""Which environment a database belongs to: a staging server that was given production's database refuses to touch it.

`manage.py migrate` stamps a database with the environment's name (ENVIRONMENT_NAME) the first time. From then on a process of another
name, or of none, gets no connection to it: not the server, not the worker, and no command but `manage.py adopt_database`.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from observability.api import run_burst

_IS_STAMPABLE: Final = "SELECT to_regclass('chatbot_site_databasestamp') IS NOT NULL"
_READ: Final = "SELECT environment FROM chatbot_site_databasestamp"
_STAMP: Final = "INSERT INTO chatbot_site_databasestamp (id, environment, stamped_at) VALUES (1, %s, now()) ON CONFLICT DO NOTHING"

_found_ours: set[tuple[str, ...]] = set()


class ForeignDatabase(ImproperlyConfigured):
    """The database belongs to another environment."""

    def __init__(self, theirs: str) -> None:
        ours = settings.DATABASE_STAMP
        here = f"the environment '{ours}'" if ours else "without ENVIRONMENT_NAME"
        super().__init__(
            f"The database of DATABASE_URL belongs to the environment '{theirs}', and this is {here}: nothing was read or changed. "
            f"Set DATABASE_URL to this environment's own database, or ENVIRONMENT_NAME to '{theirs}' if this is that environment. "
            f"If the database is a restored copy, make it this environment's with: python manage.py adopt_database --from '{theirs}'"
        )


def guard_connections() -> None:
    """Look at the stamp when this process first connects to a database, and refuse every connection to somebody else's."""
    connection_created.connect(_refuse_if_foreign, dispatch_uid="chatbot_site.stamp")


async def refuse_foreign_database() -> None:
    """Connect now, so that a process that may not work here ends at once.

    Raises:
        ForeignDatabase: the database belongs to another environment.
    """
    with contextlib.suppress(DatabaseError):  # of which readiness tells; the connection that comes later is looked at, too
        await run_burst(lambda: connection.ensure_connection())


def stamp_database() -> None:
    """Make the database this environment's, unless it is stamped already, has no place for a stamp, or this environment has no name."""
    with connection.cursor() as cursor:
        if settings.DATABASE_STAMP and _one_value(cursor, _IS_STAMPABLE):
            cursor.execute(_STAMP, [settings.DATABASE_STAMP])


def _refuse_if_foreign(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    database = tuple(str(connection.settings_dict[part]) for part in ("HOST", "PORT", "NAME"))
    if connection.alias != DEFAULT_DB_ALIAS or database in _found_ours:
        return
    with connection.cursor() as cursor:
        theirs = _one_value(cursor, _IS_STAMPABLE) and _one_value(cursor, _READ)
    if theirs and theirs != settings.DATABASE_STAMP:
        connection.close()  # Django would go on with it, had somebody caught the error
        raise ForeignDatabase(str(theirs))
    _found_ours.add(database)


def _one_value(cursor: Any, query: str) -> Any:
    """Return the one value of `query`, None where there is no row."""
    cursor.execute(query)
    row = cursor.fetchone()
    return row[0] if row else None
