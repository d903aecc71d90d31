"""Database connections beside Django's: to listen on, or to hold a lock for longer than a burst."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.conninfo import conninfo_to_dict

# What is for Django's own, synchronous connections alone.
_DJANGOS: Final = frozenset({"cursor_factory", "context"})


def connection_parameters(alias: str = DEFAULT_DB_ALIAS, *, direct: bool = True) -> dict[str, Any]:
    """Return what `psycopg.connect`, or its async twin, needs for a connection to the same database as Django's.

    It is a direct one, DIRECT_DATABASE_URL, where that is set: what listens needs a session of its own, which a transaction pooler
    does not give, and what holds a lock for long would take one of the pooler's connections away from everybody.

    Args:
        direct: whether it is that; otherwise, the connection that everybody else has.
    """
    parameters = {name: value for name, value in connections[alias].get_connection_params().items() if name not in _DJANGOS}
    if direct and alias == DEFAULT_DB_ALIAS and settings.DIRECT_DATABASE_URL:
        parameters |= conninfo_to_dict(settings.DIRECT_DATABASE_URL)
    return parameters
