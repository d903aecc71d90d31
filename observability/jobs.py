"""Noting that background work failed: counted, and kept as a row for the alerts. Nothing of what it worked on is kept."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError

from observability.bursts import run_burst
from observability.counting import count_job_failure
from observability.models import JobFailure

log = structlog.get_logger(__name__)


async def note_job_failure(queue: str, error: Exception) -> None:
    """Note that a try of `queue` failed with `error`; never raises. `queue`: one of a few names, a label of metrics."""
    count_job_failure(queue)
    if isinstance(error, OperationalError | InterfaceError):
        return  # the database is away, and with it the place to keep it; another alert tells of that
    try:
        await run_burst(_keep, queue, type(error).__name__)
    except DatabaseError as unkept:
        log.warning("failure of background work not kept", queue=queue, reason=type(unkept).__name__)


def _keep(queue: str, error: str) -> None:
    JobFailure.objects.create(queue=queue, error=error[:100], at=datetime.now(UTC))
