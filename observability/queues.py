"""What waits for the worker. Each app registers its queues; metrics and alerts ask how many jobs wait, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue in PostgreSQL. Names are bounded: they are labels of metrics.

    Attributes:
        statement: selects (jobs that wait, since when the oldest of them waits) in one row, without parameters.
        is_served: false where this installation has nothing to do the work with, so that nobody waits for it.
    """

    name: str
    statement: str
    is_served: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long a queue is, in jobs, and since when its oldest one waits."""

    queue: str
    jobs: int
    since: datetime | None


_queues: Final[dict[str, Queue]] = {}


def register_queue(queue: Queue) -> None:
    """Count `queue` in; one of the same name is replaced."""
    _queues[queue.name] = queue


def jobs_waiting() -> list[Waiting]:
    """Return how each queue stands, the empty ones too: one query."""
    served = [queue for queue in _queues.values() if queue.is_served()]
    if not served:
        return []
    statement = " UNION ALL ".join(f"SELECT '{queue.name}', job.* FROM ({queue.statement}) AS job" for queue in served)  # noqa: S608 - constants
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [Waiting(*row) for row in cursor.fetchall()]
