"""Database connections beside Django's: to listen on, or to hold a lock for longer than a burst."""

from __future__ import annotations

from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, connections

# What is for Django's own, synchronous connections alone.
_DJANGOS: Final = frozenset({"cursor_factory", "context"})


def connection_parameters(alias: str = DEFAULT_DB_ALIAS) -> dict[str, Any]:
    """Return what `psycopg.connect`, or its async twin, needs for a connection to the same database as Django's."""
    return {name: value for name, value in connections[alias].get_connection_params().items() if name not in _DJANGOS}
