"""Storing passages with their vectors and postings, in one transaction that the caller began."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection

from memory.embedders.client import EmbeddingModel, Vector
from memory.features import PassageFeatures
from memory.models import Speaker
from memory.spaces import space_for

SESSION_GAP: Final = 10
"""How far places jump where a session begins, so that neighbours are always of one session."""
WINDOW: Final = 2
"""How many neighbours count on each side."""

_LOCK_OWNERS: Final = "SELECT id FROM memory_owner WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
# Those that another process remembered meanwhile are not remembered twice; those that are being deleted, not at all.
_STILL_DUE: Final = "SELECT id FROM memory_turn WHERE id = ANY(%s) AND remembered_at IS NULL ORDER BY id FOR NO KEY UPDATE"
# A new passage changes the windows of two before it, and theirs reach two further.
_LAST_PLACES: Final = f"""
    SELECT owner_id, seq, session, length, window_length
    FROM unnest(%s::bigint[]) AS owner (id)
    CROSS JOIN LATERAL (
        SELECT * FROM memory_passage WHERE owner_id = owner.id ORDER BY seq DESC LIMIT {2 * WINDOW}
    ) AS last
    ORDER BY owner_id, seq
"""  # noqa: S608 - a constant
_ADD_PASSAGES: Final = """
    COPY memory_passage (owner_id, turn_id, session, seq, speaker, part, said_at, text, content_hash, length, window_length, word_count,
                         asks, has_time, has_number, has_reason, has_name, spans) FROM STDIN
"""
_ADD_SENTENCES: Final = "COPY memory_sentence (owner_id, space_id, seq, place, words, is_question, embedding) FROM STDIN"
_ADD_POSTINGS: Final = "COPY memory_posting (owner_id, term, seq, frequency, in_question) FROM STDIN"
_WIDEN_WINDOWS: Final = """
    UPDATE memory_passage passage SET window_length = new.window_length
    FROM unnest(%s::bigint[], %s::int[], %s::int[]) AS new (owner_id, seq, window_length)
    WHERE passage.owner_id = new.owner_id AND passage.seq = new.seq
"""
_END_WAITING: Final = "UPDATE memory_turn SET remembered_at = clock_timestamp() WHERE id = ANY(%s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPassage:
    """A passage to be stored. `vectors` are those of its sentences, in order, or none."""

    owner_id: int
    turn_id: UUID
    session: int
    speaker: Speaker
    part: int
    said_at: datetime
    text: str
    features: PassageFeatures
    vectors: tuple[Vector, ...]


@dataclass(slots=True)
class _Place:
    """A passage's place among its owner's; `passage` None: it is stored already."""

    owner_id: int
    seq: int
    session: int
    length: int
    window_length: int = 0
    passage: NewPassage | None = None


@dataclass(slots=True)
class _Places:
    """Gives passages their places, behind those that their owners have."""

    by_owner: defaultdict[int, list[_Place]] = field(default_factory=lambda: defaultdict(list))

    def add(self, passage: NewPassage) -> None:
        own = self.by_owner[passage.owner_id]
        goes_on = bool(own) and own[-1].session == passage.session
        seq = own[-1].seq + (1 if goes_on else SESSION_GAP) if own else 0
        own.append(_Place(passage.owner_id, seq, passage.session, passage.features.length, passage=passage))

    def new(self) -> list[_Place]:
        return [place for own in self.by_owner.values() for place in own if place.passage]

    def set_windows(self) -> list[_Place]:
        """Set the window of each new passage; return the stored ones whose windows grew."""
        changed = []
        for own in self.by_owner.values():
            lengths = {place.seq: place.length for place in own}
            # The first of those that are stored have neighbours that were not read; nothing new comes near them.
            for place in own[max(0, _stored(own) - WINDOW) :]:
                window_length = sum(lengths.get(seq, 0) for seq in range(place.seq - WINDOW, place.seq + WINDOW + 1))
                if place.passage is None and window_length != place.window_length:
                    changed.append(place)
                place.window_length = window_length
        return changed


def store(passages: Sequence[NewPassage], *, turn_ids: Sequence[UUID], model: EmbeddingModel) -> int:
    """Store `passages` of the turns `turn_ids`, in their order, and end these turns' waiting; return how many still waited.

    Raises:
        WrongSpace: `model` is not the one whose vectors are stored.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_OWNERS, [sorted({passage.owner_id for passage in passages})])
        owners = [id for (id,) in cursor.fetchall()]
        cursor.execute(_STILL_DUE, [list(turn_ids)])
        due = {id for (id,) in cursor.fetchall()}
        places = _Places()
        cursor.execute(_LAST_PLACES, [owners])
        for row in cursor.fetchall():
            places.by_owner[row[0]].append(_Place(*row))
        for passage in passages:
            if passage.turn_id in due and passage.owner_id in owners:
                places.add(passage)
        changed = places.set_windows()
        new = places.new()
        space_id = _space_of(new, model)
        _copy(cursor, _ADD_PASSAGES, map(_passage_row, new))
        _copy(cursor, _ADD_SENTENCES, _sentence_rows(new, space_id))
        _copy(cursor, _ADD_POSTINGS, _posting_rows(new))
        windows = ([place.owner_id for place in changed], [place.seq for place in changed], [place.window_length for place in changed])
        cursor.execute(_WIDEN_WINDOWS, windows)
        cursor.execute(_END_WAITING, [list(due)])
    return len(due)


def _copy(cursor: Any, statement: str, rows: Iterable[Sequence[Any]]) -> None:
    with cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _passage_row(place: _Place) -> Sequence[Any]:
    passage = place.passage
    assert passage is not None
    found = passage.features
    return (
        place.owner_id,
        passage.turn_id,
        place.session,
        place.seq,
        passage.speaker.value,
        passage.part,
        passage.said_at,
        passage.text,
        hashlib.sha256(passage.text.encode()).digest()[:16],
        found.length,
        place.window_length,
        found.word_count,
        found.asks,
        found.has_time,
        found.has_number,
        found.has_reason,
        found.has_name,
        "{" + ",".join(f"[{span.first},{span.last}]" for span in found.spans) + "}",
    )


def _space_of(places: Sequence[_Place], model: EmbeddingModel) -> int | None:
    """Return the space of the vectors at `places`; None where there are none."""
    dimensions = next((len(vector) for place in places if place.passage for vector in place.passage.vectors), None)
    return None if dimensions is None else space_for(model, dimensions=dimensions).id


def _sentence_rows(places: Sequence[_Place], space_id: int | None) -> Iterator[Sequence[Any]]:
    for place in places:
        assert place.passage is not None
        for number, vector in enumerate(place.passage.vectors):
            sentence = place.passage.features.sentences[number]
            yield place.owner_id, space_id, place.seq, number, sentence.words, sentence.is_question, _halfvec(vector)


def _posting_rows(places: Sequence[_Place]) -> Iterator[Sequence[Any]]:
    for place in places:
        assert place.passage is not None
        for found in place.passage.features.terms:
            yield place.owner_id, found.term, place.seq, found.frequency, found.in_question


def _halfvec(vector: Vector) -> str:
    return "[" + ",".join(f"{value:.5g}" for value in vector) + "]"  # a half has no more digits


def _stored(own: Sequence[_Place]) -> int:
    return sum(1 for place in own if place.passage is None)
