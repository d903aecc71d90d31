"""Row-level security: a transaction sees the memories of the owners it names, and nobody else's, whatever its statements say.

Queries name their owner anyway. This is the second lock: a query that forgot to would find nothing, instead of a stranger's
memories. The policies (migration 0004) hold every role but superusers and those with BYPASSRLS, so work is done as the role
`chatbot_app`, which is neither, wherever the connection's user may take it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from django.db import connection, transaction

from observability.api import Statement, run_together

ROLE: Final = "chatbot_app"
# One round trip; both last until the transaction ends, so a pooled connection never carries them into the next.
_ACT: Final = "SELECT set_config('app.owners', %s, true), set_config('role', %s, true)"
_AND_END: Final = ", set_config('statement_timeout', %s, true)"
_STANDING: Final = """
    SELECT rolsuper OR rolbypassrls,
           EXISTS (SELECT FROM pg_roles WHERE rolname = %s AND NOT rolsuper AND NOT rolbypassrls)
    FROM pg_roles WHERE rolname = session_user
"""
_MAY_TAKE: Final = (
    "SELECT pg_has_role(session_user, %s, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the connection's user is to row-level security. Where it `is_above_it` and may not `take_role`, only the queries filter."""

    is_above_it: bool
    may_take_role: bool

    @property
    def is_held(self) -> bool:
        return self.may_take_role or not self.is_above_it


def act_for(owner_ids: Collection[int], *, timeout_ms: int | None = None) -> None:
    """From here to the end of the transaction, see and write the memories of these owners alone.

    A statement that takes longer than `timeout_ms` is ended. Must be called inside a transaction: outside of one it would last no
    longer than itself, and everything be hidden.
    """
    run_together(acting(owner_ids, timeout_ms=timeout_ms))


def acting(owner_ids: Collection[int], *, timeout_ms: int | None = None) -> Statement:
    """Return the statement of `act_for`, for who has others to send along with it."""
    role = ROLE if _standing(connection.alias).may_take_role else "none"
    owners = "{" + ",".join(str(int(id)) for id in owner_ids) + "}"
    if timeout_ms is None:
        return _ACT, [owners, role]
    return _ACT + _AND_END, [owners, role, str(timeout_ms)]


def stop_acting() -> None:
    """Take the connection's own role again within the same transaction, and see no memories."""
    with connection.cursor() as cursor:
        cursor.execute(_ACT, ["", "none"])


@contextlib.contextmanager
def acting_for(owner_ids: Collection[int]) -> Iterator[None]:
    """A transaction, or a part of one, that sees and writes the memories of these owners alone, and none once it is over."""
    with transaction.atomic():  # which takes back what was set, should it fail
        act_for(owner_ids)
        yield
        stop_acting()


def read_standing() -> Standing:
    """Ask the database what its user is to row-level security."""
    with connection.cursor() as cursor:
        cursor.execute(_STANDING, [ROLE])
        row = cursor.fetchone()
        is_above_it, role_exists = row if row else (False, False)
        if not role_exists:
            return Standing(bool(is_above_it), may_take_role=False)
        cursor.execute(_MAY_TAKE, [ROLE])
        [may_take] = cursor.fetchone() or [False]
    return Standing(bool(is_above_it), may_take_role=bool(may_take))


@lru_cache(maxsize=8)
def _standing(alias: str) -> Standing:
    """Once a process: roles are made by migrations, before it starts."""
    return read_standing()
