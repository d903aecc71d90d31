"""The calls that one turn made, for its trace."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from observability.models import Attempt


def calls_of_turn(turn_id: UUID) -> Sequence[Attempt]:
    """Return the rows that a turn has in the ledger, in the order in which they began; they are not to be changed."""
    return list(Attempt.objects.filter(turn_id=turn_id).order_by("started_at", "number"))
