"""Storing facts with the passages they were read from, in the transaction that stores those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from django.db import connection

from memory.embedders.client import EmbeddingModel
from memory.facts.settling import settle
from memory.isolation import act_for
from memory.models import Origin
from memory.storing import NewPassage, store_alone

_SOURCES: Final = """
    SELECT turn_id, owner_id, part, id FROM memory_passage
    WHERE owner_id = ANY(%s) AND turn_id = ANY(%s) AND origin = 'turn' AND speaker = 'user'
"""
_READ_BY_RULE: Final = "SELECT turn_id, attribute FROM memory_passage WHERE owner_id = ANY(%s) AND turn_id = ANY(%s) AND origin = 'fact'"


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
    new = [fact for fact, id in zip(read, store_alone(read, model=model), strict=True) if id is not None]
    settle((fact.owner_id, fact.attribute) for fact in new)
    return len(new)
