"""What people do to memories by hand: add, correct, pin and forget them.

Texts are embedded before the transaction begins, so no database connection is held meanwhile. Where the embedder does not answer,
nothing is stored, and whoever wrote the text is told so: it would be recalled by its words alone, and nobody would know.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from django.db import connection

from memory.embedders.client import RETRY_CACHE_S, EmbeddingFailed, EmbeddingModel, Vector
from memory.embedders.failures import EmbeddingRefused
from memory.embedders.passages import embed_passages
from memory.facts.patterns import CORRECTION
from memory.facts.rules import statements_in
from memory.facts.settling import fill_user_names, settle
from memory.features import PassageFeatures, features_of
from memory.isolation import acting_for
from memory.models import MemoryOwner, Origin, OwnerKind, Passage, Speaker
from memory.spaces import WrongSpace, model_in_use, space_for
from memory.storing import WINDOW, NewPassage, content_hash, store_alone
from memory.words import words
from observability.api import run_burst
from observability.errors import BadRequest, ChatbotError, Unavailable

MAX_CHARS: Final = 2000
"""How long a memory that is written by hand may be."""
_MAX_ATTRIBUTE_CHARS: Final = 100
_EMBED_S: Final = 10.0

# It, and what it took the place of.
_WITH_HISTORY: Final = """
    WITH RECURSIVE gone AS (
        SELECT id, source_id FROM memory_passage WHERE owner_id = %(owner)s AND id = %(id)s
        UNION
        SELECT old.id, old.source_id FROM memory_passage old JOIN gone ON old.superseded_by_id = gone.id WHERE old.owner_id = %(owner)s
    )
    SELECT id FROM gone UNION SELECT source_id FROM gone WHERE source_id IS NOT NULL
"""
_WITH_WHAT_WAS_READ: Final = """
    DELETE FROM memory_passage WHERE owner_id = %(owner)s AND (id = ANY(%(ids)s) OR source_id = ANY(%(ids)s))
    RETURNING seq, attribute
"""
# What stood next to it has other neighbours now.
_SET_WINDOWS: Final = f"""
    UPDATE memory_passage passage SET window_length = around.length
    FROM memory_passage beside, LATERAL (
        SELECT sum(length) AS length FROM memory_passage
        WHERE owner_id = beside.owner_id AND seq BETWEEN beside.seq - {WINDOW} AND beside.seq + {WINDOW}
    ) AS around
    WHERE passage.id = beside.id AND beside.owner_id = %(owner)s AND beside.seq = ANY(%(beside)s)
"""  # noqa: S608 - a constant


class MemoryNotFound(ChatbotError):
    code = "memory-not-found"
    status = 404
    title = "Memory not found"
    remedy = "Check the memory's id; the list of memories has those that there are."


class MemoryIsHistory(ChatbotError):
    code = "memory-is-history"
    status = 409
    title = "Memory is history"
    remedy = "It was corrected or contradicted meanwhile. Read the list of memories again and correct the one that took its place."


@dataclass(frozen=True, slots=True)
class _Text:
    """A text to be stored, embedded already."""

    text: str
    said_at: datetime
    features: PassageFeatures
    vectors: tuple[Vector, ...]
    model: EmbeddingModel


async def add(owner_id: int, *, text: str, author: str, attribute: str = "") -> int:
    """Add a memory and return its id; the id of the one that is there where somebody added the same text before.

    What it contradicts is superseded: by its `attribute`, or where a person's own words say what they are about ("I live in Ulm").

    Raises:
        MemoryNotFound: there is no such owner.
        BadRequest: the text has no words, or is too long.
        Unavailable: it could not be embedded now; nothing was stored.
    """
    return await run_burst(_add, owner_id, await _embedded(owner_id, text), author=author, attribute=_checked_attribute(attribute))


async def correct(owner_id: int, passage_id: int, *, text: str, author: str) -> int:
    """Put another text in a memory's place and return its id. What it was stays as history, and is recalled no more.

    The facts that were read from it are superseded too; so is what it was read from, where that says nothing else.

    Raises:
        MemoryNotFound: the owner has no such memory.
        MemoryIsHistory: something else took its place already.
        BadRequest, Unavailable: as for `add`.
    """
    return await run_burst(_correct, owner_id, passage_id, await _embedded(owner_id, text), author=author)


def pin(owner_id: int, passage_id: int, *, pinned: bool) -> None:
    """Keep a memory whatever caps and age limits say, or no longer.

    Raises:
        MemoryNotFound: the owner has no such memory.
    """
    with acting_for([owner_id]):
        found = Passage.objects.filter(owner_id=owner_id, pk=passage_id)
        if not found.update(pinned_at=datetime.now(UTC) if pinned else None):
            raise MemoryNotFound


def forget(owner_id: int, passage_id: int) -> int:
    """Delete a memory for good and return how many passages went with it, itself included.

    They are those whose place it took, those that it and they were read from, and whatever else was read from these.

    Raises:
        MemoryNotFound: the owner has no such memory.
    """
    with acting_for([owner_id]), connection.cursor() as cursor:
        _lock(owner_id)
        cursor.execute(_WITH_HISTORY, {"owner": owner_id, "id": passage_id})
        ids = [id for (id,) in cursor.fetchall()]
        if not ids:
            raise MemoryNotFound
        cursor.execute(_WITH_WHAT_WAS_READ, {"owner": owner_id, "ids": ids})
        gone = cursor.fetchall()
        beside = sorted({seq + step for seq, _ in gone for step in range(-WINDOW, WINDOW + 1) if seq >= 0})
        cursor.execute(_SET_WINDOWS, {"owner": owner_id, "beside": beside})
        if any(attribute == "name" for _, attribute in gone):
            fill_user_names([owner_id])
    return len(gone)


async def _embedded(owner_id: int, text: str) -> _Text:
    text, said_at = _checked(text), datetime.now(UTC)
    names = await run_burst(_names, owner_id)
    features = features_of(text, said_on=said_at.date(), names=names)
    try:
        model = await run_burst(model_in_use)
    except WrongSpace as error:
        raise Unavailable(f"Nothing was stored. {error}") from error
    if model is None:
        raise Unavailable("Nothing was stored: there is nothing to embed it with. Set EMBEDDING_BASE_URL, OPENAI_API_KEY or EMBEDDER_URL.")
    try:
        texts = [sentence.text for sentence in features.sentences]
        async with asyncio.timeout(_EMBED_S):
            [vectors] = await embed_passages([texts], model=model, cache_s=RETRY_CACHE_S)
    except EmbeddingRefused as error:
        raise Unavailable(f"Nothing was stored: {error}.") from error
    except (EmbeddingFailed, TimeoutError) as error:
        raise Unavailable("Nothing was stored: the embedding model did not answer. Try again.") from error
    return _Text(text, said_at, features, tuple(vectors or ()), model)  # a text that is never embedded is found by its words


def _checked(text: str) -> str:
    text = text.replace("\0", "").strip()
    if not words(text):
        raise BadRequest(fields={"text": ["Write what is to be remembered."]})
    if len(text) > MAX_CHARS:
        raise BadRequest(fields={"text": [f"A memory has at most {MAX_CHARS} characters. Write several."]})
    return text


def _checked_attribute(attribute: str) -> str:
    attribute = attribute.replace("\0", "").strip().lower()
    if len(attribute) > _MAX_ATTRIBUTE_CHARS:
        raise BadRequest(fields={"attribute": [f"At most {_MAX_ATTRIBUTE_CHARS} characters."]})
    return attribute


def _names(owner_id: int) -> tuple[str, ...]:
    names = MemoryOwner.objects.filter(pk=owner_id).values_list("user_name", "agent_name").first()
    if names is None:
        raise MemoryNotFound("There is nobody with such memories.")
    return tuple(filter(None, names))


def _lock(owner_id: int) -> MemoryOwner:
    """Let one writer at a time change an owner's memories."""
    owner = MemoryOwner.objects.select_for_update().filter(pk=owner_id).first()
    if owner is None:
        raise MemoryNotFound
    return owner


def _make_space(new: _Text) -> None:
    """The first vectors of all need a space, and who acts for an owner may not make one."""
    if new.vectors:
        space_for(new.model, dimensions=len(new.vectors[0]))


def _add(owner_id: int, new: _Text, *, author: str, attribute: str) -> int:
    _make_space(new)
    with acting_for([owner_id]):
        owner = _lock(owner_id)
        own_words = _attribute_of(new.text) if owner.kind == OwnerKind.PERSON else ""
        speaker = Speaker.USER if own_words else Speaker.NOTE
        id = _store(owner_id, new, author=author, attribute=attribute or own_words, speaker=speaker)
        settle([(owner_id, attribute or own_words)])
        return id


def _correct(owner_id: int, passage_id: int, new: _Text, *, author: str) -> int:
    _make_space(new)
    with acting_for([owner_id]):
        _lock(owner_id)
        old = Passage.objects.filter(owner_id=owner_id, pk=passage_id).first()
        if old is None:
            raise MemoryNotFound
        if old.text == new.text:
            return old.pk
        if old.valid_until is not None:
            return _corrected_before(old, new.text)
        attribute = old.attribute or _attribute_of(new.text)
        id = _store(owner_id, new, author=author, attribute=attribute, speaker=Speaker(old.speaker))
        replaced = Passage.objects.filter(owner_id=owner_id, valid_until=None).exclude(pk=id)
        if old.pinned_at:
            Passage.objects.filter(owner_id=owner_id, pk=id).update(pinned_at=old.pinned_at)
        facts = replaced.filter(source_id=old.pk)
        attributes = {attribute, *facts.values_list("attribute", flat=True)}
        (replaced.filter(pk=old.pk) | facts).update(valid_until=new.said_at, superseded_by_id=id)
        settle([(owner_id, each) for each in attributes])
        return id


def _corrected_before(old: Passage, text: str) -> int:
    """Return the id of the correction where somebody sends the same one again."""
    successor = old.superseded_by
    if successor is None or successor.text != text:
        raise MemoryIsHistory
    return successor.pk


def _store(owner_id: int, new: _Text, *, author: str, attribute: str, speaker: Speaker) -> int:
    passage = NewPassage(
        owner_id=owner_id,
        origin=Origin.ADDED,
        speaker=speaker,
        said_at=new.said_at,
        text=new.text,
        features=new.features,
        vectors=new.vectors,
        attribute=attribute,
        author=author[:100],
    )
    [id] = store_alone([passage], model=new.model)
    if id is not None:
        return id
    same = Passage.objects.filter(owner_id=owner_id, content_hash=content_hash(new.text), origin=Origin.ADDED, valid_until=None)
    return same.values_list("pk", flat=True).get()


def _attribute_of(text: str) -> str:
    """Return what a person's own words are about; "" where that is not plain, or several things."""
    attributes = {statement.attribute for statement in statements_in(text)} - {CORRECTION}
    return attributes.pop() if len(attributes) == 1 else ""
