"""Changing the embedding model: every memory gets vectors of the new one, while the former goes on being written and recalled.

What is left to do is read from the database: passages that have vectors in the space in use and none in the new one. So a
change that was broken off, be it by `kill -9`, is taken up by the next run, and what is said meanwhile is caught. The last few
are embedded while nobody else may write vectors; the same transaction finds that none is left, and brings the new space into use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction

from memory.embedders.client import EmbeddingFailed, EmbeddingModel, Vector, embed
from memory.embedders.configured import embedding_model, next_embedding_model
from memory.embedders.passages import embed_passages
from memory.features import PassageFeatures, features_of
from memory.isolation import act_for, stop_acting
from memory.models import EmbeddingSpace, MemoryOwner
from memory.spaces import active_space, hold_spaces, share_spaces
from memory.storing import add_sentences, halfvec

OWNERS_AT_ONCE: Final = 200
PASSAGES_AT_ONCE: Final = 64
ROWS_AT_ONCE: Final = 20_000
LAST_ONES: Final = 128
"""How many passages may be left when writing is held up for them."""
CACHE_S: Final = 60
"""What was embedded and not stored when a run was broken off is not embedded again by one that follows at once."""
_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_CHARS_A_TOKEN: Final = 4
_FIRST: Final = (0, -(2**31))

_PENDING: Final = """
    FROM memory_passage passage JOIN memory_owner owner ON owner.id = passage.owner_id
    WHERE passage.owner_id = ANY(%(owners)s) AND passage.id <> ALL(%(refused)s)
      AND EXISTS (
          SELECT FROM {source} old WHERE old.owner_id = passage.owner_id AND old.space_id = %(source)s AND old.seq = passage.seq
      )
      AND NOT EXISTS (
          SELECT FROM {target} new WHERE new.owner_id = passage.owner_id AND new.space_id = %(target)s AND new.seq = passage.seq
      )
"""
_COUNT: Final = """
    SELECT count(*), coalesce(sum(char_length(passage.text)), 0), coalesce(sum((
        SELECT count(*) FROM {source} old WHERE old.owner_id = passage.owner_id AND old.space_id = %(source)s AND old.seq = passage.seq
    )), 0)
"""
_NEXT: Final = "SELECT passage.id, passage.owner_id, passage.seq, passage.text, passage.said_at, owner.user_name, owner.agent_name"
_IN_ORDER: Final = "AND (passage.owner_id, passage.seq) > (%(owner)s, %(seq)s) ORDER BY passage.owner_id, passage.seq LIMIT %(most)s"
# Owners before passages, as those lock them who erase a person.
_LOCK_OWNERS: Final = "SELECT id FROM memory_owner WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE"
_LOCK_PASSAGES: Final = "SELECT id FROM memory_passage WHERE owner_id = ANY(%s) AND id = ANY(%s) ORDER BY id FOR KEY SHARE"
_DELETE_SOME: Final = """
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE owner_id = ANY(%(owners)s) AND space_id = %(space)s LIMIT %(most)s
    ))
"""


class NothingToChange(Exception):
    """Why there is nothing to embed anew, in words for the operator."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to be embedded: memories, the texts (sentences) in them, and about how many tokens these are."""

    memories: int = 0
    texts: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Progress:
    """How far a run is."""

    total: int
    done: int = 0
    refused: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def a_second(self) -> float:
        return self.done / max(time.monotonic() - self.started, 0.001)

    @property
    def left_s(self) -> float:
        return max(self.total - self.done, 0) / self.a_second if self.done else 0.0


@dataclass(frozen=True, slots=True)
class _Pending:
    """A passage that has no vectors of the new model yet."""

    id: int
    owner_id: int
    seq: int
    text: str
    said_at: datetime
    user_name: str
    agent_name: str

    def features(self) -> PassageFeatures:
        names = tuple(filter(None, (self.user_name, self.agent_name)))
        return features_of(self.text, said_on=self.said_at.date(), names=names)


class Reembedding:
    """Brings the space of `model` into use. Not to be used from async code: it has an event loop of its own, `runner`.

    Raises:
        NothingToChange: nothing was embedded yet, or `model` is in use already.
        EmbeddingFailed: `model` does not answer.
    """

    def __init__(self, model: EmbeddingModel, *, runner: asyncio.Runner) -> None:
        self.model = model
        self._runner = runner
        source = active_space()
        if source is None:
            raise NothingToChange("Nothing was embedded yet: memories will be embedded by the model of EMBEDDING_* from the start.")
        if model.makes(source.model, dimensions=source.dimensions):
            raise NothingToChange(f"Memories are embedded by {source} already.")
        self.source = source
        [probe] = runner.run(embed(["Which length?"], model=model, cache_s=0))
        self.target, _ = EmbeddingSpace.objects.get_or_create(model=model.name, dimensions=len(probe))
        self._refused: set[int] = set()

    def count(self) -> Workload:
        """Return what is left to be embedded."""
        memories = chars = texts = 0
        for owner_ids in _owners():
            with transaction.atomic():
                [row] = self._select(_COUNT, owner_ids)
            memories, chars, texts = memories + row[0], chars + int(row[1]), texts + int(row[2])
        return Workload(memories, texts, chars // _CHARS_A_TOKEN)

    def run(self, *, total: int, report: Callable[[Progress], None]) -> Progress:
        """Embed what is left, of which there is about `total`, and bring the new space into use.

        Raises:
            EmbeddingFailed: the model did not answer for a minute. What was done stays done.
        """
        progress = Progress(total)
        while True:
            for owner_ids in _owners():
                self._change_some(owner_ids, progress, report=report)
            if self._switch(progress):
                return progress

    def _change_some(self, owner_ids: Sequence[int], progress: Progress, *, report: Callable[[Progress], None]) -> None:
        place, count = _FIRST, PASSAGES_AT_ONCE
        while count == PASSAGES_AT_ONCE:  # fewer are the last; what somebody goes on saying meanwhile is left for the next pass
            pending = self._next(owner_ids, after=place, most=PASSAGES_AT_ONCE)
            count = len(pending)
            if pending:
                self._store(pending, self._embed(pending, pauses_s=_PAUSES_S), progress)
                place = (pending[-1].owner_id, pending[-1].seq)
                report(progress)

    def _switch(self, progress: Progress) -> bool:
        """Embed the last ones and bring the new space into use; False: there were too many, or they could not be embedded."""
        with transaction.atomic():
            hold_spaces()
            if active_space() != self.source:
                raise NothingToChange("Another run came first.")
            last: list[_Pending] = []
            for owner_ids in _owners():
                last += self._next(owner_ids, after=_FIRST, most=LAST_ONES + 1)
                if len(last) > LAST_ONES:
                    return False
            try:
                vectors = self._embed(last, pauses_s=())
            except EmbeddingFailed:
                return False
            self._store(last, vectors, progress)
            stop_acting()
            EmbeddingSpace.objects.filter(pk=self.source.pk).update(is_active=False)
            EmbeddingSpace.objects.filter(pk=self.target.pk).update(is_active=True)
        return True

    def _next(self, owner_ids: Sequence[int], *, after: tuple[int, int], most: int) -> list[_Pending]:
        with transaction.atomic():
            rows = self._select(_NEXT, owner_ids, _IN_ORDER, owner=after[0], seq=after[1], most=most)
        return [_Pending(*row) for row in rows]

    def _select(self, columns: str, owner_ids: Sequence[int], rest: str = "", **parameters: Any) -> list[Any]:
        tables = {"source": _table_of(self.source), "target": _table_of(self.target)}
        parameters |= {"owners": list(owner_ids), "refused": list(self._refused), "source": self.source.pk, "target": self.target.pk}
        act_for(owner_ids)
        with connection.cursor() as cursor:
            cursor.execute((columns + _PENDING + rest).format(**tables), parameters)
            return list(cursor.fetchall())

    def _embed(self, pending: Sequence[_Pending], *, pauses_s: Sequence[float]) -> list[list[Vector] | None]:
        sentences = [[sentence.text for sentence in passage.features().sentences] for passage in pending]
        for pause_s in (*pauses_s, None):
            try:
                vectors = self._runner.run(embed_passages(sentences, model=self.model, cache_s=CACHE_S))
                if lengths := {len(vector) for own in vectors for vector in own or ()} - {self.target.dimensions}:
                    raise EmbeddingFailed(f"{self.model.name} now gives {min(lengths)} dimensions instead of {self.target.dimensions}")
                return vectors
            except EmbeddingFailed:
                if pause_s is None:
                    raise
                time.sleep(pause_s)
        raise AssertionError  # the last one raised

    def _store(self, pending: Sequence[_Pending], vectors: Sequence[list[Vector] | None], progress: Progress) -> None:
        """Store the vectors of those that are still there. Those that have none are not asked for again in this run."""
        owner_ids = sorted({passage.owner_id for passage in pending})
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_LOCK_OWNERS, [owner_ids])
            act_for(owner_ids)
            cursor.execute(_LOCK_PASSAGES, [owner_ids, [passage.id for passage in pending]])
            there = {id for (id,) in cursor.fetchall()}
            found = [(passage, own) for passage, own in zip(pending, vectors, strict=True) if own and passage.id in there]
            add_sentences(cursor, _rows(found), space=self.target)
        without = {passage.id for passage, own in zip(pending, vectors, strict=True) if not own}
        self._refused |= without
        progress.refused += len(without)
        progress.done += sum(len(own) for _, own in found)


def model_to_change_to() -> EmbeddingModel | None:
    """Return the model that EMBEDDING_NEXT_* name, else the one of EMBEDDING_*."""
    return next_embedding_model() or embedding_model()


def unused_spaces() -> list[EmbeddingSpace]:
    """Return the spaces that are neither in use nor being changed to."""
    target = model_to_change_to()
    return [
        space
        for space in EmbeddingSpace.objects.filter(is_active=False).order_by("id")
        if target is None or not target.makes(space.model, dimensions=space.dimensions)
    ]


def drop_space(space: EmbeddingSpace, *, report: Callable[[int], None]) -> int:
    """Delete the vectors of a space that is not in use, some at a time, and then the space; return how many there were.

    Raises:
        NothingToChange: it came into use.
    """
    delete = _DELETE_SOME.format(table=_table_of(space))
    deleted = 0
    for owner_ids in _owners():
        count = ROWS_AT_ONCE
        while count == ROWS_AT_ONCE:
            with transaction.atomic(), connection.cursor() as cursor:
                _prove_unused(space)
                act_for(owner_ids)
                cursor.execute(delete, {"owners": owner_ids, "space": space.pk, "most": ROWS_AT_ONCE})
                count = cursor.rowcount
            deleted += count
            report(deleted)
    with transaction.atomic():
        _prove_unused(space)
        space.delete()
    return deleted


def _prove_unused(space: EmbeddingSpace) -> None:
    share_spaces()
    if active_space() == space:
        raise NothingToChange(f"{space} is in use. Nothing of it may be deleted.")


def _owners() -> Iterator[list[int]]:
    """Yield the ids of all owners, some at a time."""
    last = 0
    while ids := list(MemoryOwner.objects.filter(id__gt=last).order_by("id").values_list("id", flat=True)[:OWNERS_AT_ONCE]):
        yield ids
        last = ids[-1]


def _table_of(space: EmbeddingSpace) -> str:
    return "memory_widesentence" if space.is_wide else "memory_sentence"


def _rows(found: Sequence[tuple[_Pending, list[Vector]]]) -> Iterator[Sequence[Any]]:
    for passage, vectors in found:
        for place, (sentence, vector) in enumerate(zip(passage.features().sentences, vectors, strict=True)):
            yield passage.owner_id, passage.seq, place, sentence.words, sentence.is_question, halfvec(vector)
