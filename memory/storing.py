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
from django.db.backends.utils import CursorWrapper

from memory.embedders.client import EmbeddingModel, Vector
from memory.features import PassageFeatures
from memory.isolation import act_for
from memory.models import EmbeddingSpace, Origin, Speaker
from memory.spaces import space_for

SESSION_GAP: Final = 10
"""How far places jump where a session begins, so that neighbours are always of one session."""
WINDOW: Final = 2
"""How many neighbours count on each side."""

_LOCK_OWNERS: Final = "SELECT id FROM memory_owner WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
# Those that another process remembered meanwhile are not remembered twice; those that are being deleted, not at all.
_STILL_DUE: Final = "SELECT id FROM memory_turn WHERE id = ANY(%s) AND remembered_at IS NULL ORDER BY id FOR NO KEY UPDATE"
# A new passage changes the windows of two before it, and theirs reach two further.
_LAST_PLACES: Final = f"""
    SELECT owner_id, seq, session, length, window_length
    FROM unnest(%s::bigint[]) AS owner (id)
    CROSS JOIN LATERAL (
        SELECT * FROM memory_passage WHERE owner_id = owner.id AND seq >= 0 ORDER BY seq DESC LIMIT {2 * WINDOW}
    ) AS last
    ORDER BY owner_id, seq
"""  # noqa: S608 - a constant
_FIRST_PLACES: Final = "SELECT owner_id, min(seq) FROM memory_passage WHERE owner_id = ANY(%s) AND seq < 0 GROUP BY owner_id"
# Not COPY, which row-level security refuses.
_ADD_PASSAGES: Final = """
    INSERT INTO memory_passage (owner_id, origin, turn_id, session, seq, speaker, part, said_at, text, content_hash, attribute, source_id,
                                author, length, window_length, word_count, asks, has_time, has_number, has_reason, has_name, spans)
    SELECT owner_id, origin, turn_id, session, seq, speaker, part, said_at, text, content_hash, attribute, source_id,
           author, length, window_length, word_count, asks, has_time, has_number, has_reason, has_name, spans::datemultirange
    FROM unnest(%s::bigint[], %s::text[], %s::uuid[], %s::bigint[], %s::int[], %s::text[], %s::int[], %s::timestamptz[], %s::text[],
                %s::bytea[], %s::text[], %s::bigint[], %s::text[], %s::int[], %s::int[], %s::int[], %s::float8[], %s::bool[], %s::bool[],
                %s::bool[], %s::bool[], %s::text[])
      AS new (owner_id, origin, turn_id, session, seq, speaker, part, said_at, text, content_hash, attribute, source_id,
              author, length, window_length, word_count, asks, has_time, has_number, has_reason, has_name, spans)
    ON CONFLICT DO NOTHING
    RETURNING owner_id, seq, id
"""
_ADD_SENTENCES: Final = """
    INSERT INTO memory_sentence (owner_id, space_id, seq, place, words, is_question, embedding)
    SELECT owner_id, %s, seq, place, words, is_question, embedding::halfvec
    FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::int[], %s::bool[], %s::text[])
      AS new (owner_id, seq, place, words, is_question, embedding)
    ON CONFLICT DO NOTHING
"""
_ADD_WIDE_SENTENCES: Final = """
    INSERT INTO memory_widesentence (owner_id, space_id, seq, place, words, is_question, embedding, sketch)
    SELECT owner_id, %s, seq, place, words, is_question, embedding::halfvec, binary_quantize(embedding::halfvec)::varbit
    FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::int[], %s::bool[], %s::text[])
      AS new (owner_id, seq, place, words, is_question, embedding)
    ON CONFLICT DO NOTHING
"""
_ADD_POSTINGS: Final = """
    INSERT INTO memory_posting (owner_id, term, seq, frequency, in_question)
    SELECT * FROM unnest(%s::bigint[], %s::text[], %s::int[], %s::int[], %s::bool[])
"""
_WIDEN_WINDOWS: Final = """
    UPDATE memory_passage passage SET window_length = new.window_length
    FROM unnest(%s::bigint[], %s::int[], %s::int[]) AS new (owner_id, seq, window_length)
    WHERE passage.owner_id = new.owner_id AND passage.seq = new.seq
"""
_END_WAITING: Final = "UPDATE memory_turn SET remembered_at = clock_timestamp() WHERE id = ANY(%s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPassage:
    """A passage to be stored. `vectors` are those of its sentences, in order, or none.

    What stands alone (any origin but `turn`) needs no `session`, and may come without a turn.
    """

    owner_id: int
    speaker: Speaker
    said_at: datetime
    text: str
    features: PassageFeatures
    vectors: tuple[Vector, ...]
    origin: Origin = Origin.TURN
    turn_id: UUID | None = None
    session: int = 0
    part: int = 0
    attribute: str = ""
    source_id: int | None = None
    author: str = ""


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
    """Gives passages of turns their places, behind those that their owners have."""

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

    The transaction acts for the passages' owners from here on (`memory.isolation`).

    Raises:
        WrongSpace: `model` is not the one whose vectors are stored.
    """
    space = _space_of(passages, model)
    owner_ids = sorted({passage.owner_id for passage in passages})
    act_for(owner_ids)
    with connection.cursor() as cursor:
        owners = _lock(cursor, owner_ids)
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
        _add(cursor, places.new(), space)
        windows = ([place.owner_id for place in changed], [place.seq for place in changed], [place.window_length for place in changed])
        cursor.execute(_WIDEN_WINDOWS, windows)
        cursor.execute(_END_WAITING, [list(due)])
    return len(due)


def store_alone(passages: Sequence[NewPassage], *, model: EmbeddingModel | None) -> list[int | None]:
    """Store passages that stand alone; return their ids, None for one that is there already or whose owner is gone.

    The transaction acts for the passages' owners from here on.

    Raises:
        WrongSpace: `model` is not the one whose vectors are stored.
    """
    space = _space_of(passages, model) if model else None
    owner_ids = sorted({passage.owner_id for passage in passages})
    act_for(owner_ids)
    with connection.cursor() as cursor:
        owners = _lock(cursor, owner_ids)
        cursor.execute(_FIRST_PLACES, [owners])
        first = defaultdict(int, cursor.fetchall())
        places: list[_Place | None] = []
        for passage in passages:
            if passage.owner_id not in owners:
                places.append(None)
                continue
            first[passage.owner_id] -= SESSION_GAP
            seq, length = first[passage.owner_id], passage.features.length
            places.append(_Place(passage.owner_id, seq, seq, length, window_length=length, passage=passage))
        ids = _add(cursor, [place for place in places if place], space)
    return [ids.get((place.owner_id, place.seq)) if place else None for place in places]


def _lock(cursor: CursorWrapper, owner_ids: Sequence[int]) -> list[int]:
    """Lock the owners and return those that exist: places are given to one writer at a time."""
    cursor.execute(_LOCK_OWNERS, [list(owner_ids)])
    return [id for (id,) in cursor.fetchall()]


def _add(cursor: CursorWrapper, places: Sequence[_Place], space: EmbeddingSpace | None) -> dict[tuple[int, int], int]:
    """Insert the passages at `places` with their sentences and postings; return the ids of those that were not there yet."""
    cursor.execute(_ADD_PASSAGES, _columns(map(_passage_row, places), 22))
    ids = {(owner_id, seq): id for owner_id, seq, id in cursor.fetchall()}
    new = [place for place in places if (place.owner_id, place.seq) in ids]
    if space is not None:
        add_sentences(cursor, _sentence_rows(new), space=space)
    cursor.execute(_ADD_POSTINGS, _columns(_posting_rows(new), 5))
    return ids


def add_sentences(cursor: CursorWrapper, rows: Iterable[Sequence[Any]], *, space: EmbeddingSpace) -> None:
    """Insert sentences, as rows of (owner_id, seq, place, words, is_question, vector as text), into the table for `space`."""
    statement = _ADD_WIDE_SENTENCES if space.is_wide else _ADD_SENTENCES
    cursor.execute(statement, [space.id, *_columns(rows, 6)])


def _columns(rows: Iterable[Sequence[Any]], count: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]


def _passage_row(place: _Place) -> Sequence[Any]:
    passage = place.passage
    assert passage is not None
    found = passage.features
    return (
        place.owner_id,
        passage.origin.value,
        passage.turn_id,
        place.session,
        place.seq,
        passage.speaker.value,
        passage.part,
        passage.said_at,
        passage.text,
        content_hash(passage.text),
        passage.attribute,
        passage.source_id,
        passage.author,
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


def content_hash(text: str) -> bytes:
    """Return what tells equal texts: the first half of the SHA-256."""
    return hashlib.sha256(text.encode()).digest()[:16]


def _space_of(passages: Sequence[NewPassage], model: EmbeddingModel) -> EmbeddingSpace | None:
    """Return the space of the passages' vectors; None where there are none."""
    dimensions = next((len(vector) for passage in passages for vector in passage.vectors), None)
    return None if dimensions is None else space_for(model, dimensions=dimensions)


def _sentence_rows(places: Sequence[_Place]) -> Iterator[Sequence[Any]]:
    for place in places:
        assert place.passage is not None
        for number, vector in enumerate(place.passage.vectors):
            sentence = place.passage.features.sentences[number]
            yield place.owner_id, place.seq, number, sentence.words, sentence.is_question, halfvec(vector)


def _posting_rows(places: Sequence[_Place]) -> Iterator[Sequence[Any]]:
    for place in places:
        assert place.passage is not None
        for found in place.passage.features.terms:
            yield place.owner_id, found.term, place.seq, found.frequency, found.in_question


def halfvec(vector: Sequence[float]) -> str:
    """Return `vector` as PostgreSQL reads it."""
    return "[" + ",".join(f"{value:.5g}" for value in vector) + "]"  # a half has no more digits


def _stored(own: Sequence[_Place]) -> int:
    return sum(1 for place in own if place.passage is None)
