"""`manage.py migrate`: Django's own, by one process at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from django.core.management.commands.migrate import Command as Migrate
from django.db import DEFAULT_DB_ALIAS

from chatbot_site.stamp import stamp_database
from observability.api import connection_parameters

# An arbitrary number, this command's own among the advisory locks of a database.
_LOCK_KEY: Final = 7_205_759_404
# A lock of a transaction, in a connection of its own: behind a transaction pooler, too, it lasts as long as it is to.
_STAY_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout = 0"
# An index that is built concurrently waits for the end of every transaction that had a snapshot when it looked. So whoever has to wait
# ends the transaction after each try; a statement that waited for the lock would hold the index up for ever.
_TRY_LOCK: Final = f"SELECT pg_try_advisory_xact_lock({_LOCK_KEY})"
_EVERY_S: Final = 0.2


class Command(Migrate):
    """Where several servers are started at once and each migrates first, the others wait and find nothing left to do."""

    def handle(self, *args: Any, **options: Any) -> None:
        with _alone(options["database"]):
            super().handle(*args, **options)
            if options["database"] == DEFAULT_DB_ALIAS:
                stamp_database()


@contextlib.contextmanager
def _alone(alias: str) -> Iterator[None]:
    with psycopg.connect(**connection_parameters(alias)) as guard:
        while guard.execute(_TRY_LOCK).fetchone() != (True,):
            guard.rollback()
            time.sleep(_EVERY_S)
        guard.execute(_STAY_IDLE)
        yield
