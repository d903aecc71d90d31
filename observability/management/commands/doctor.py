"""`manage.py doctor`: tries everything that this server depends on, and says what is wrong and what to do."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser

from observability.doctor.examination import Grade
from observability.doctor.examining import Result, examine, worst_of
from observability.doctor.table import as_json, as_table
from observability.logs import set_level
from observability.outbound import close_transports

_QUESTION: Final = (
    "Each model in use is asked for one token, and each embedder for one vector; that costs fractions of a cent. Go ahead? [y/N] "
)


class Command(BaseCommand):
    help = "Tries database, cache, models, embedder, queues, alert targets, clocks, disk and more; says what is wrong, and the remedy."
    # It says itself what they would, and goes on.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON for machines")
        calls = parser.add_mutually_exclusive_group()
        calls.add_argument("--no-calls", action="store_true", help="make no calls that may cost something")
        calls.add_argument("--yes", action="store_true", help="make them without asking")

    def handle(self, *args: Any, json: bool, no_calls: bool, yes: bool, **options: Any) -> None:
        with_calls = yes or (not no_calls and self._may_call())
        _log_no_warnings()
        results = asyncio.run(_examine(with_calls=with_calls))
        self.stdout.write(as_json(results) if json else as_table(results, columns=shutil.get_terminal_size((120, 40)).columns))
        if worst_of(results) is Grade.FAILED:
            sys.exit(1)

    def _may_call(self) -> bool:
        """Ask who sits there; where nobody does, no call is made."""
        if not sys.stdin.isatty():
            return False
        self.stderr.write(_QUESTION, ending="")
        self.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _examine(*, with_calls: bool) -> list[Result]:
    try:
        return await examine(with_calls=with_calls)
    finally:
        await close_transports()


def _log_no_warnings() -> None:
    """Leave the log to others: what it would say stands in the table."""
    set_level("CRITICAL")
    logging.disable(logging.CRITICAL)  # some libraries have levels of their own
