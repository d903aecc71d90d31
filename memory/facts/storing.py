"""Storing facts with the passages they were read from, in the transaction that stores those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from django.db import connection

from memory.embedders.client import EmbeddingModel
from memory.facts.patterns import CORRECTION
from memory.facts.rules import read_as
from memory.facts.settling import settle
from memory.isolation import act_for
from memory.models import Origin
from memory.storing import NewPassage, store_alone

_SOURCES: Final = """
    SELECT turn_id, owner_id, part, id FROM memory_passage
    WHERE owner_id = ANY(%s) AND turn_id = ANY(%s) AND origin = 'turn' AND speaker = 'user'
"""
_READ_BY_RULE: Final = "SELECT turn_id, attribute FROM memory_passage WHERE owner_id = ANY(%s) AND turn_id = ANY(%s) AND origin = 'fact'"
# A fact that names its value in its attribute ("opinion:tea") is about nothing else.
_HELD: Final = """
    SELECT attribute, text FROM memory_passage
    WHERE owner_id = %s AND attribute <> '' AND valid_until IS NULL AND said_at <= %s
    ORDER BY said_at DESC, seq LIMIT 500
"""


def store_facts(facts: Sequence[NewPassage], *, model: EmbeddingModel | None) -> int:
    """Store facts, and make history of what they contradict; return how many were new.

    A fact's `turn_id` and `part` name what it was read from. Where that is gone (somebody forgot it meanwhile), nothing is stored;
    nor is what a model read of a turn and rules did too.
    The transaction acts for the facts' owners from here on.

    Raises:
        WrongSpace: `model` is not the one whose vectors are stored.
    """
    if not facts:
        return 0
    act_for({fact.owner_id for fact in facts})
    with connection.cursor() as cursor:
        cursor.execute(_SOURCES, [list({fact.owner_id for fact in facts}), list({fact.turn_id for fact in facts})])
        sources = {(turn_id, owner_id, part): id for turn_id, owner_id, part, id in cursor.fetchall()}
        cursor.execute(_READ_BY_RULE, [list({fact.owner_id for fact in facts}), list({fact.turn_id for fact in facts})])
        by_rule = set(cursor.fetchall())
    facts = [fact for fact in facts if fact.origin == Origin.FACT or (fact.turn_id, fact.attribute) not in by_rule]
    read = [replace(fact, source_id=source, part=0) for fact in facts if (source := sources.get((fact.turn_id, fact.owner_id, fact.part)))]
    stored = _store([fact for fact in read if fact.attribute != CORRECTION], model=model)
    for correction in read:
        if correction.attribute == CORRECTION and (attribute := _corrected_by(correction)):
            stored += _store([replace(correction, attribute=attribute)], model=model)
    return stored


def _store(facts: Sequence[NewPassage], *, model: EmbeddingModel | None) -> int:
    if not facts:
        return 0
    new = [fact for fact, id in zip(facts, store_alone(facts, model=model), strict=True) if id is not None]
    settle((fact.owner_id, fact.attribute) for fact in new)
    return len(new)


def _corrected_by(correction: NewPassage) -> str:
    """Return the attribute of the newest fact that has the wrong value; "" where none has."""
    wrong = read_as(CORRECTION, correction.text).corrects
    act_for([correction.owner_id])  # others' facts may have been stored last
    with connection.cursor() as cursor:
        cursor.execute(_HELD, [correction.owner_id, correction.said_at])
        held = [read_as(attribute, text) for attribute, text in cursor.fetchall()]
    return next((fact.attribute for fact in held if fact.value == wrong and wrong not in fact.attribute.split(":")), "")
