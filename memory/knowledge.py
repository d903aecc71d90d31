"""What agents know for everybody, at a glance: each one's own, and shared collections."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import Q

from memory.browsing import memory_counts
from memory.models import MemoryOwner, OwnerKind


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A body of texts. `collection` "" is an agent's own; `owner_id` None: it is not there yet."""

    collection: str
    owner_id: int | None
    texts: int


def knowledge_of(agent: str, *, collections: Collection[str]) -> list[Knowledge]:
    """Return what `agent` knows by itself, and then the `collections`, in their order."""
    wanted = Q(kind=OwnerKind.AGENT, agent=agent) | Q(kind=OwnerKind.SHARED, collection__in=collections)
    ids = {owner.collection: owner.pk for owner in MemoryOwner.objects.filter(wanted)}
    counts = memory_counts(list(ids.values()))
    names = ["", *dict.fromkeys(collections)]
    return [Knowledge(name, ids.get(name), counts[ids[name]] if name in ids else 0) for name in names]
