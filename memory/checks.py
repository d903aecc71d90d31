"""System checks of long-term memory.

    memory.W001   turns are not remembered: nothing to embed with, or no worker
    memory.W002   row-level security is not in force
    memory.W003   memories are embedded by another model than the settings ask for first
    memory.W004   memories are embedded by a model that the settings do not name: nothing is remembered or recalled

They read the database, so they run with `manage.py check --database default`. None is an error: that would stop migrations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.apps import AppConfig
from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import DatabaseError, connections

from memory.health import find_lack_of_isolation, find_mismatch, find_trouble, find_unfinished_change

_TROUBLES: Final[Mapping[str, Callable[[], str]]] = {
    "memory.W001": find_trouble,
    "memory.W002": find_lack_of_isolation,
    "memory.W003": find_unfinished_change,
    "memory.W004": find_mismatch,
}


@register(Tags.database)
def check_memory(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report what keeps turns from being remembered, or memories from being held apart."""
    if not _is_readable(databases):
        return []
    troubles = {id: find().partition(". ") for id, find in _TROUBLES.items()}
    return [Warning(f"{trouble}.", hint=remedy, id=id) for id, (trouble, _, remedy) in troubles.items() if trouble]


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
