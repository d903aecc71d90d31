"""Which memories a turn's prompt held: stored in the transaction that ends the turn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from memory.isolation import acting_for

# Memories that are deleted at this moment, or with their owner, are left out; nobody is waited for.
_ADD_RECALLED: Final = """
    INSERT INTO memory_recalled (turn_id, owner_id, passage_id, position, score, contributions, recalled_at)
    SELECT new.turn_id, owner.id, passage.id, new.position, new.score, new.contributions, clock_timestamp()
    FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::int[], %s::float8[], %s::jsonb[])
      AS new (turn_id, owner_id, passage_id, position, score, contributions)
    JOIN memory_owner owner ON owner.id = new.owner_id
    JOIN memory_passage passage ON passage.owner_id = new.owner_id AND passage.id = new.passage_id
    FOR KEY SHARE OF owner, passage SKIP LOCKED
    RETURNING turn_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecalledPassage:
    """A memory that a turn's prompt held: its place among them (1 is the best), and what each feature added to its score."""

    owner_id: int
    passage_id: int
    position: int
    score: float
    contributions: Mapping[str, float] = field(default_factory=dict)


def add_recalled(cursor: CursorWrapper, recalled: Sequence[tuple[UUID, RecalledPassage]]) -> list[UUID]:
    """Store which memories the prompts of turns (by id) held; return the turn of each that was stored: some may be gone by now."""
    if not recalled:
        return []
    with acting_for(sorted({passage.owner_id for _, passage in recalled})):
        cursor.execute(
            _ADD_RECALLED,
            [
                [id for id, _ in recalled],
                [passage.owner_id for _, passage in recalled],
                [passage.passage_id for _, passage in recalled],
                [passage.position for _, passage in recalled],
                [passage.score for _, passage in recalled],
                [json.dumps(dict(passage.contributions)) for _, passage in recalled],
            ],
        )
        return [turn_id for (turn_id,) in cursor.fetchall()]
