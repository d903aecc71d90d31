"""`manage.py adopt_database`: makes a restored copy of another environment's database this environment's own."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from observability.api import connection_parameters

_ADOPT: Final = "UPDATE chatbot_site_databasestamp SET environment = %s, stamped_at = now() WHERE environment = %s"
_READ: Final = "SELECT environment FROM chatbot_site_databasestamp"


class Command(BaseCommand):
    help = "After restoring another environment's dump: says that the database belongs to this environment from now on."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", dest="theirs", required=True, help="the environment that the database belongs to until now")

    def handle(self, *args: Any, theirs: str, **options: Any) -> None:
        if not (ours := settings.DATABASE_STAMP):
            raise CommandError("ENVIRONMENT_NAME is not set. Set it to the name of this environment, such as staging.")
        # A connection beside Django's: Django gets none to a database of another environment.
        with psycopg.connect(**connection_parameters()) as database:
            try:
                if not database.execute(_ADOPT, [ours, theirs]).rowcount:
                    raise CommandError(_why_not(database, theirs))
            except psycopg.errors.UndefinedTable:
                raise CommandError("This database has no stamp yet. Run `manage.py migrate`, which stamps it.") from None
        self.stdout.write(
            f"The database belongs to '{ours}' now. It still holds what '{theirs}' put there: API keys, people's conversations, and "
            f"alert targets, which would be told of what happens here. Revoke and remove what this environment must not have."
        )


def _why_not(database: psycopg.Connection[Any], theirs: str) -> str:
    row = database.execute(_READ).fetchone()
    return f"The database belongs to '{row[0]}', not to '{theirs}'." if row else "This database has no stamp yet. Run `manage.py migrate`."
