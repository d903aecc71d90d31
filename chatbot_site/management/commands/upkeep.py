"""`manage.py upkeep`: what the workers do every hour, now; or, with --dry-run, what they would do."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents.versions.keeping import list_policies
from memory.api import AlreadyRunning, Counts, run_upkeep
from observability.api import run_burst

_NO_AGENT: Final = "(no agent)"


class Command(BaseCommand):
    help = "Forgets memories and deletes conversations that agents no longer keep. Workers do so every hour by themselves."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="delete nothing; say what would be")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        try:
            counts, error = asyncio.run(_run(is_dry=dry_run))
        except AlreadyRunning:
            raise CommandError("Another process is at it. The admin's page on upkeep shows how far it is.") from None
        self.stdout.write(as_table(counts, is_dry=dry_run))
        if error:
            raise CommandError(f"Not done: {error}.")


async def _run(*, is_dry: bool) -> tuple[Counts, str]:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    policies = await run_burst(list_policies)
    run = await run_upkeep(policies, actor="manage.py upkeep", is_dry=is_dry, stopping=stopping)
    return run.counts, run.error


def as_table(counts: Counts, *, is_dry: bool) -> str:
    """Return what was deleted as lines of agent, reason and number."""
    rows = [(agent or _NO_AGENT, reason.replace("_", " "), count) for agent, own in sorted(counts.items()) for reason, count in own.items()]
    if not rows:
        return "Nothing to delete."
    title = ("agent", "would be deleted" if is_dry else "deleted", "rows")
    wide = [max(len(str(row[column])) for row in [title, *rows]) for column in range(3)]
    return "\n".join(f"{agent:{wide[0]}}  {reason:{wide[1]}}  {count:>{wide[2]}}" for agent, reason, count in [title, *rows])
