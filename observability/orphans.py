"""Attempts whose process died before it could settle them."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Final

import structlog
from django.db import connection, transaction

from observability.budgets import settle_reservations
from observability.bursts import run_burst
from observability.counting import Orphan, count_orphans
from observability.ledger import NUMBER
from observability.rounds import keep_doing

log = structlog.get_logger(__name__)

_EVERY_S: Final = 10.0
_MOST_ORPHANS: Final = 500
# At worst: the budget it was promised from must not be freed for less than it may have cost.
_ORPHANS: Final = f"""
    UPDATE observability_attempt
    SET outcome = 'orphaned', is_estimated = true, prompt_tokens = worst_prompt_tokens, cached_tokens = 0,
        completion_tokens = worst_completion_tokens,
        cost_usd = (worst_prompt_tokens * greatest(input_usd, cached_input_usd) + worst_completion_tokens * output_usd) / 1000000,
        settled_at = clock_timestamp(), settled_xid = {NUMBER}
    WHERE id IN (
        SELECT id FROM observability_attempt WHERE outcome = 'running' AND deadline_at < now()
        ORDER BY id LIMIT {_MOST_ORPHANS} FOR UPDATE SKIP LOCKED
    )
    RETURNING id, cost_usd, prompt_tokens, completion_tokens, agent, provider, model
"""  # noqa: S608 - constants


def settle_orphans() -> int:
    """Settle attempts whose process died before it could, at the most they may have cost, flagged as estimates; return how many.

    Safe to run in several processes at once. At most 500 a call.
    """
    with connection.cursor() as cursor:
        cursor.execute(_ORPHANS)
        orphans = [(id, Orphan(*row)) for id, *row in cursor.fetchall()]
    settle_reservations({id: (orphan.cost_usd or Decimal(0), orphan.prompt_tokens + orphan.completion_tokens) for id, orphan in orphans})
    transaction.on_commit(lambda: count_orphans(orphan for _, orphan in orphans))
    return len(orphans)


async def keep_settling_orphans(stopping: asyncio.Event) -> None:
    """Settle what processes that died left behind, until `stopping` is set."""

    async def step() -> None:
        while (settled := await run_burst(settle_orphans)) and not stopping.is_set():
            log.warning("attempts settled that were left behind", attempts=settled, effect="they count as the most they may have cost")
            if settled < _MOST_ORPHANS:
                break

    await keep_doing(stopping, step, every_s=_EVERY_S, what="settling what was left behind", queue="orphans")
