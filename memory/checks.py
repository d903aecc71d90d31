"""System checks of long-term memory.

    memory.W001   turns are not remembered: nothing to embed with, no worker, or another embedding model than before

It reads the database, so it runs with `manage.py check --database default`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import DatabaseError, connections

from memory.health import find_trouble


@register(Tags.database)
def check_memory(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report what keeps turns from being remembered."""
    if not _is_readable(databases):
        return []
    trouble, _, remedy = find_trouble().partition(". ")
    return [Warning(f"{trouble}.", hint=remedy, id="memory.W001")] if trouble else []


def _is_readable(databases: Sequence[str] | None) -> bool:
    """Tell whether this run checks the database, and the tables exist: `migrate` checks before it has made them."""
    if "default" not in (databases or ()):
        return False
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT FROM pg_attribute WHERE attrelid = to_regclass('memory_turn') AND attname = 'remembered_at'")
            return cursor.fetchone() is not None
    except DatabaseError:
        # A database that is down has checks of its own.
        return False
