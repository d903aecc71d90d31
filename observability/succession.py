"""What limits a key limits those that come of it, too: else whoever rotates a key, or makes others with it, would lift its budgets.

Keys that a key made, and the one that takes its place, spend from its own budgets, all together, and so do those that come of them.
Whom a key comes of is written with it and never changes, so a process reads it once. Limits on requests are each key's own: a
successor's are like the old one's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from django.db import connection

from observability.bursts import run_burst
from observability.models import Limit, LimitScope, SharedBudget

_MOST_KNOWN: Final = 10_000
_PAYERS: Final = """
    WITH RECURSIVE spending (key, payer) AS (
        SELECT key, payer FROM observability_sharedbudget WHERE key = ANY(%s)
        UNION
        SELECT spending.key, further.payer FROM spending JOIN observability_sharedbudget further ON further.key = spending.payer
    )
    SELECT key, payer FROM spending
"""
_known: dict[str, frozenset[str]] = {}


def share_budgets(payers: Collection[str], *, key: str) -> None:
    """Let the new API key `key` spend from the budgets of `payers`, and from those that these spend from; all are public ids.

    Runs inside the transaction that makes the key.
    """
    SharedBudget.objects.bulk_create([SharedBudget(key=key, payer=payer) for payer in sorted(set(payers))])


def payers_of(keys: Collection[str]) -> Mapping[str, frozenset[str]]:
    """Return whose budgets each of `keys` spends from: its own, and those of the keys that it comes of."""
    found = {key: payers for key in keys if (payers := _known.get(key)) is not None}
    if missing := {*keys} - found.keys():
        read = _read_payers(missing)
        if len(_known) + len(read) > _MOST_KNOWN:
            _known.clear()
        _known.update(read)
        found |= read
    return found


async def find_payers(key: str) -> frozenset[str]:
    """Return whose budgets `key` spends from.

    Raises:
        django.db.Error: this process has never read it, and the database does not answer.
    """
    known = _known.get(key)
    return (await run_burst(payers_of, [key]))[key] if known is None else known


def _read_payers(keys: Collection[str]) -> dict[str, frozenset[str]]:
    payers = {key: {key} for key in keys}
    with connection.cursor() as cursor:
        cursor.execute(_PAYERS, [list(keys)])
        for key, payer in cursor.fetchall():
            payers[key].add(payer)
    return {key: frozenset(them) for key, them in payers.items()}


def hand_on_limits(old: str, *, to: str) -> None:
    """Give the API key with the public id `to` limits on requests and tokens a minute like those of `old`."""
    for limit in Limit.objects.filter(scope=LimitScope.KEY, name=old):
        limit.pk, limit.name = None, to
        limit.save(force_insert=True)
