"""What turns recalled, and why, as it is shown on the pages of turns and conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q
from django.urls import reverse

from memory.isolation import acting_for
from memory.models import MemoryOwner, OwnerKind, Recalled, Speaker, Turn
from memory.naming import name_owner
from memory.reasons import Reason, draw_reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """A memory that a turn recalled. `owner_url` is the list in which it stands."""

    position: int
    text: str
    speaker: str
    said_at: datetime
    score: float
    reasons: list[Reason]
    whose: str
    owner_url: str
    is_past: bool


def recollections_of(turn: Turn) -> list[Recollection]:
    """Return what was recalled for `turn`, the best first."""
    return recollections_of_many([turn]).get(turn.pk, [])


def recollections_of_many(turns: Sequence[Turn]) -> dict[UUID, list[Recollection]]:
    """Return what was recalled for each of `turns`, which are of one conversation, by the turn's id."""
    if not turns:
        return {}
    conversation = turns[0].conversation
    of_person = Q(kind=OwnerKind.PERSON, subject_id=conversation.subject_id, agent=conversation.agent)
    of_agent = Q(kind=OwnerKind.AGENT, agent=conversation.agent)
    owners = {owner.pk: owner for owner in MemoryOwner.objects.filter(of_person | of_agent | Q(kind=OwnerKind.SHARED))}
    found: dict[UUID, list[Recollection]] = {}
    with acting_for(list(owners)):
        rows = Recalled.objects.filter(turn__in=turns).select_related("passage").order_by("turn", "position")
        for row in rows:
            found.setdefault(row.turn_id, []).append(_recollection(row, owners[row.owner_id]))
    return found


def _recollection(row: Recalled, owner: MemoryOwner) -> Recollection:
    passage = row.passage
    return Recollection(
        position=row.position,
        text=passage.text,
        speaker="" if passage.speaker == Speaker.NOTE else Speaker(passage.speaker).label,
        said_at=passage.said_at,
        score=row.score,
        reasons=draw_reasons(row.contributions),
        whose=name_owner(owner),
        owner_url=reverse("admin:memory_memoryowner_change", args=(owner.pk,)),
        is_past=passage.valid_until is not None,
    )
