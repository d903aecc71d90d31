"""Reading what a page shows within a limited time: a busy database must not take the page with it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final, TypeVar

import structlog
from django.db import OperationalError, connection, transaction

from observability.logs import in_words

log = structlog.get_logger(__name__)

T = TypeVar("T")

FIGURE_S: Final = 1.0
PAGE_S: Final = 3.0


class Reading:
    """What one page reads of the database: each figure within `FIGURE_S`, all of them within `PAGE_S` of the beginning."""

    def __init__(self) -> None:
        self._until = monotonic() + PAGE_S

    def has_time(self) -> bool:
        """Tell whether the page has as much time left as a figure may take."""
        return monotonic() + FIGURE_S <= self._until

    def read(self, name: str, ask: Callable[[], T]) -> T | None:
        """Return what `ask` reads of the database, or None where that was not there in time; then the log has `name`."""
        until = min(self._until, monotonic() + FIGURE_S)

        def in_time(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
            left_ms = int((until - monotonic()) * 1000)
            if left_ms <= 0:
                raise OperationalError("no time is left")
            execute(f"SET LOCAL statement_timeout = {left_ms}", None, False, context)
            return execute(sql, params, many, context)

        try:
            with transaction.atomic():
                with connection.execute_wrapper(in_time):
                    found = ask()
                with connection.cursor() as cursor:  # what comes after has its own time, where this is part of a longer transaction
                    cursor.execute("SET LOCAL statement_timeout TO DEFAULT")
                return found
        except OperationalError as error:
            log.warning("not read in time", what=name, reason=in_words(error))
            return None
