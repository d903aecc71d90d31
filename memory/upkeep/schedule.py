"""When upkeep runs: every hour, in one of the workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from django.db import Error as DatabaseError

from memory.models import UpkeepRun
from memory.upkeep.policy import Policy
from memory.upkeep.run import AlreadyRunning, run_upkeep
from observability.api import is_set_within, note_job_failure, run_burst
from observability.logs import in_words

log = structlog.get_logger(__name__)

EVERY: Final = timedelta(hours=1)
# Workers that were started together do not all come at once, nor every hour on the hour.
_JITTER_S: Final = 300.0
_AFTER_FAILURE_S: Final = 60.0
_AFTER_START_S: Final = 10.0


async def keep_tidy(stopping: asyncio.Event, policies: Callable[[], Sequence[Policy]]) -> None:
    """Run upkeep every hour until `stopping` is set. What fails is logged and tried again.

    Args:
        policies: asks the database what each agent keeps; called in a transaction, before each pass.
    """
    wait_s = random.uniform(0, _AFTER_START_S)  # noqa: S311 - no secret
    while not await is_set_within(stopping, seconds=wait_s):
        try:
            wait_s = await run_burst(due_in_s)
            if wait_s <= 0:
                await run_upkeep(await run_burst(policies), actor="worker", stopping=stopping)
                wait_s = EVERY.total_seconds()
            wait_s += random.uniform(0, _JITTER_S)  # noqa: S311 - no secret
        except AlreadyRunning:
            wait_s = _JITTER_S
        except Exception as error:  # a fault of ours must not end the worker either
            reason = in_words(error)
            log.warning("upkeep failed", reason=reason, exc_info=not isinstance(error, DatabaseError))
            wait_s = _AFTER_FAILURE_S
            await note_job_failure("upkeep", error)


def due_in_s(now: datetime | None = None) -> float:
    """Return in how many seconds the next pass is due; 0 or less: now, as when the last one broke off."""
    finished = UpkeepRun.objects.filter(is_dry=False, error="", finished_at__isnull=False)
    last = finished.order_by("-finished_at").values_list("finished_at", flat=True).first()
    return (last + EVERY - (now or datetime.now(UTC))).total_seconds() if last else 0.0
