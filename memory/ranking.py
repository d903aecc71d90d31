"""Ranking: every passage of one owner scored for one question, by the database function `rank_memory`.

The function is in migration 0010 (docs/adr/0013-recall-as-functions.md says why); `memory/weights.py` says what each feature of
the score is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from django.db import connection

from memory.models import Origin
from memory.question import Asked
from memory.storing import halfvec
from memory.weights import WEIGHTS

# The moment as a number: reading sixty of them as text takes as long as reading all the rest.
_RANK: Final = """
    SELECT id, owner_id, seq, origin, source_id, turn_id, speaker, extract(epoch FROM said_at)::float8, text, score, features
    FROM rank_memory(
        %(owner)s, %(space)s, %(embedding)s, %(terms)s, %(weights)s, %(most)s,
        in_session => %(session)s, not_turns => %(not_turns)s::uuid[], by_speaker => %(speaker)s, forms => %(forms)s,
        said_first => %(said_first)s::date[], said_last => %(said_last)s::date[], said_value => %(said_value)s::float8[],
        spoken_of => %(spoken_of)s
    )
"""
_WEIGHTS: Final = json.dumps(WEIGHTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A passage and its score for a question.

    Attributes:
        seq: its place among its owner's; what was said before it in its session has the one before.
        source_id: the passage that a fact was read from.
        features: each feature's value by name, before its weight.
    """

    id: int
    owner_id: int = 0
    seq: int = 0
    origin: str = Origin.TURN
    source_id: int | None = None
    turn_id: UUID | None
    speaker: str
    said_at: datetime
    text: str
    score: float
    features: Mapping[str, float]

    def contributions(self) -> dict[str, float]:
        """Return what each feature added to the score, by name: together they are the score."""
        return {name: WEIGHTS[name] * value for name, value in self.features.items()}


def rank(
    asked: Asked,
    *,
    embedding: Sequence[float],
    space_id: int,
    owner_id: int,
    session: int | None,
    not_turns: Sequence[UUID] = (),
    most: int,
) -> list[Ranked]:
    """Return the owner's passages with the highest scores for a question, the best first.

    Args:
        embedding: of `asked.to_embed`, of length 1, in the space `space_id`; vectors of other spaces are not looked at.
        session: only what was said in this conversation, or of no particular one; None: in any.
        not_turns: turns whose passages are not wanted, such as those that are in the prompt anyway.
        most: how many passages at most.
    """
    parameters = {
        "owner": owner_id,
        "space": space_id,
        "session": session,
        "embedding": halfvec(embedding),
        "terms": list(asked.terms),
        "speaker": asked.speaker,
        "said_first": [days.first for days in asked.said],
        "said_last": [days.last for days in asked.said],
        "said_value": [days.value for days in asked.said],
        "spoken_of": "{" + ",".join(f"[{first},{last}]" for first, last in asked.spoken_of) + "}",
        "not_turns": list(not_turns),
        "most": most,
        "weights": _WEIGHTS,
        "forms": json.dumps(dict(asked.forms)),
    }
    with connection.cursor() as cursor:
        cursor.execute(_RANK, parameters)
        rows = cursor.fetchall()
    return [_ranked(*row) for row in rows]


def _ranked(
    id: int,
    owner_id: int,
    seq: int,
    origin: str,
    source_id: int | None,
    turn_id: UUID | None,
    speaker: str,
    said_s: float,
    text: str,
    score: float,
    features: Sequence[float],
) -> Ranked:
    """Return a row of `_RANK`; `said_s`: in seconds since 1970."""
    return Ranked(
        id=id,
        owner_id=owner_id,
        seq=seq,
        origin=origin,
        source_id=source_id,
        turn_id=turn_id,
        speaker=speaker,
        said_at=datetime.fromtimestamp(said_s, UTC),
        text=text,
        score=score,
        features=dict(zip(WEIGHTS, features, strict=True)),
    )
