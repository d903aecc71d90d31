"""Which facts still hold: of what contradicts each other the newest does, and the rest is history.

What holds is computed from the facts themselves and their times, so it is the same in whatever order they came to be stored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection

from memory.embedders import builtin
from memory.facts.rules import Statement, clauses, first_name, read_as
from memory.models import Origin
from memory.words import is_filler, is_question, sentences

PREFERENCE: Final = "preference"
"""The attribute of which several statements hold at once, as long as they are about different things."""
CLOSE: Final = 0.72
"""From which cosine on two preferences are about the same thing, for the built-in embedder: docs/memory.md shows examples. Other
models' cosines have other scales, so with them only words tell."""

_AFTER_CHOICE: Final = re.compile(r" (?:to|over|than|in|on|at|for|with|without|when|of|from|near|by|if|instead|rather|as)\b")
_Group = tuple[int, str]

_FACTS: Final = """
    SELECT fact.id, fact.owner_id, fact.attribute, fact.seq, fact.turn_id, fact.said_at, fact.text, fact.origin, fact.valid_until,
           fact.superseded_by_id, fact.source_id
    FROM unnest(%s::bigint[], %s::text[]) AS asked (owner_id, attribute)
    JOIN memory_passage fact ON fact.owner_id = asked.owner_id AND fact.attribute = asked.attribute AND fact.attribute <> ''
"""
_CLOSE_PAIRS: Final = """
    SELECT one.owner_id, one.seq, other.seq
    FROM memory_embeddingspace space
    JOIN memory_sentence one ON one.space_id = space.id
    JOIN memory_sentence other ON other.owner_id = one.owner_id AND other.space_id = one.space_id AND other.seq > one.seq
    WHERE space.is_active AND space.model = %(model)s AND one.owner_id = ANY(%(owners)s)
      AND one.seq = ANY(%(seqs)s) AND other.seq = ANY(%(seqs)s) AND -(one.embedding <#> other.embedding) >= %(close)s
"""
# Never later than it ended already: whoever ended it knew something.
_END: Final = """
    UPDATE memory_passage passage SET valid_until = new.valid_until, superseded_by_id = new.successor
    FROM unnest(%s::bigint[], %s::timestamptz[], %s::bigint[]) AS new (id, valid_until, successor)
    WHERE passage.id = new.id AND (passage.valid_until IS NULL OR passage.valid_until > new.valid_until)
"""
_ATTRIBUTES_READ: Final = "SELECT DISTINCT owner_id, attribute FROM memory_passage WHERE source_id = ANY(%s)"
_SOURCES: Final = "SELECT id, text FROM memory_passage WHERE id = ANY(%s) AND valid_until IS NULL"
_NAMES: Final = """
    SELECT DISTINCT ON (owner.id) owner.id, fact.text
    FROM memory_owner owner
    LEFT JOIN memory_passage fact ON fact.owner_id = owner.id AND fact.attribute = 'name' AND fact.valid_until IS NULL
    WHERE owner.id = ANY(%s) AND owner.kind = 'person'
    ORDER BY owner.id, fact.said_at DESC, fact.seq
"""
_SET_NAMES: Final = """
    UPDATE memory_owner owner SET user_name = new.name
    FROM unnest(%s::bigint[], %s::text[]) AS new (id, name) WHERE owner.id = new.id AND owner.user_name <> new.name
"""


@dataclass(frozen=True, slots=True)
class Fact:
    """A stored fact, and until when it holds as far as that is stored."""

    id: int
    owner_id: int
    attribute: str
    seq: int
    turn_id: UUID | None
    said_at: datetime
    text: str
    origin: str
    valid_until: datetime | None = None
    superseded_by: int | None = None
    source_id: int | None = None

    @property
    def order(self) -> tuple[datetime, str, int]:
        """Facts of one turn are stored in their order, at lower and lower places."""
        return self.said_at, str(self.turn_id or ""), -self.seq

    @property
    def statement(self) -> Statement:
        return read_as(self.attribute, self.text)


@dataclass(frozen=True, slots=True)
class Ending:
    """From when a fact holds no longer, and what took its place, if anything did."""

    at: datetime
    successor: int | None


def endings(facts: Iterable[Fact], *, close: Collection[tuple[int, int]] = frozenset()) -> dict[int, Ending]:
    """Return which facts about one attribute hold no longer, by id.

    Args:
        facts: of one owner and one attribute, in any order.
        close: pairs of places (`seq`, the lower first) whose texts are about the same thing.
    """
    ordered = [(fact, fact.statement) for fact in sorted(facts, key=lambda fact: fact.order)]
    found: dict[int, Ending] = {}
    for number, (old, was) in enumerate(ordered):
        for new, says in ordered[number + 1 :]:
            if says.ends:
                concerns = _is_same(was.value, says.value)
            elif old.attribute == PREFERENCE:
                concerns = _is_choice_again(was.value, says.value) or (min(old.seq, new.seq), max(old.seq, new.seq)) in close
            else:
                concerns = True
            if concerns:
                found[old.id] = Ending(new.said_at, None if says.ends and not was.ends else new.id)
                break
    return found


def contradicts(new: Statement, old: Statement) -> bool:
    """Tell whether `new` says something else than `old`, and not the same again."""
    if new.ends != old.ends or not (new.value and old.value):
        return new.text != old.text
    return not _is_same(new.value, old.value)


def settle(groups: Iterable[_Group]) -> None:
    """Make history of what holds no longer among the facts about these owners' attributes, and of what said nothing but that."""
    wanted = sorted({group for group in groups if group[1]})
    if not wanted:
        return
    by_group = _load(wanted)
    preferences = [fact for (_, attribute), facts in by_group.items() if attribute == PREFERENCE for fact in facts]
    close = _close_pairs(preferences) if len(preferences) > 1 else {}
    ended: dict[int, Ending] = {}
    for (owner_id, _), facts in by_group.items():
        ended |= endings(facts, close=close.get(owner_id, frozenset()))
    _end(ended)
    _end_sources(wanted)
    if names := [owner_id for owner_id, attribute in wanted if attribute == "name"]:
        fill_user_names(names)


def fill_user_names(owner_ids: Sequence[int]) -> None:
    """Let the owners' people be called as their newest fact about their name says, and nothing where there is none."""
    with connection.cursor() as cursor:
        cursor.execute(_NAMES, [list(owner_ids)])
        names = [(owner_id, first_name(text or "")) for owner_id, text in cursor.fetchall()]
        cursor.execute(_SET_NAMES, [[owner_id for owner_id, _ in names], [name for _, name in names]])


def _is_same(one: str, other: str) -> bool:
    """Tell whether two values name the same thing, one perhaps more closely: "berlin" and "berlin germany"."""
    if one == other:
        return True
    ones, others = set(one.replace(",", "").split()), set(other.replace(",", "").split())
    return bool(ones and others) and ("not" in ones) == ("not" in others) and (ones <= others or others <= ones)


def _is_choice_again(one: str, other: str) -> bool:
    """Tell whether two preferences choose among the same things: "short answer" and "long answer in german"."""
    return _is_same(one, other) or _chosen(one) == _chosen(other) != ""


def _chosen(value: str) -> str:
    """Return the word that says among what somebody chooses."""
    before = _AFTER_CHOICE.split(value, maxsplit=1)[0].split()
    return before[-1] if before else ""


def _load(groups: Sequence[_Group]) -> dict[_Group, list[Fact]]:
    found: dict[_Group, list[Fact]] = {group: [] for group in groups}
    with connection.cursor() as cursor:
        cursor.execute(_FACTS, [[owner_id for owner_id, _ in groups], [attribute for _, attribute in groups]])
        for row in cursor.fetchall():
            fact = Fact(*row)
            found[fact.owner_id, fact.attribute].append(fact)
    return found


def _close_pairs(facts: Sequence[Fact]) -> dict[int, set[tuple[int, int]]]:
    """Return, by owner, the places of facts whose sentences are close in meaning."""
    found: dict[int, set[tuple[int, int]]] = {}
    parameters: dict[str, Any] = {
        "model": builtin.MODEL,
        "owners": list({fact.owner_id for fact in facts}),
        "seqs": list({fact.seq for fact in facts}),
        "close": CLOSE,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE_PAIRS, parameters)
        for owner_id, one, other in cursor.fetchall():
            found.setdefault(owner_id, set()).add((one, other))
    return found


def _end(ended: Mapping[int, Ending]) -> None:
    columns: list[list[Any]] = [list(ended), [each.at for each in ended.values()], [each.successor for each in ended.values()]]
    with connection.cursor() as cursor:
        cursor.execute(_END, columns)


def _end_sources(groups: Sequence[_Group]) -> None:
    """Make history of the passages that say nothing but what was contradicted since."""
    sources = {fact.source_id for fact in _refuted(_load(groups).values()).values() if fact.source_id}
    if not sources:
        return
    with connection.cursor() as cursor:
        cursor.execute(_ATTRIBUTES_READ, [list(sources)])
        read = _load(sorted(set(cursor.fetchall())))
        cursor.execute(_SOURCES, [list(sources)])
        texts = dict(cursor.fetchall())
    refuted = _refuted(read.values())
    ended: dict[int, Ending] = {}
    for source_id, text in texts.items():
        facts = [fact for found in read.values() for fact in found if fact.source_id == source_id]
        if facts and all(fact.id in refuted for fact in facts) and says_only(text, facts):
            last = max(facts, key=lambda fact: (fact.valid_until or fact.said_at, fact.order))
            ended[source_id] = Ending(last.valid_until or last.said_at, last.superseded_by)
    _end(ended)


def says_only(text: str, facts: Collection[Fact]) -> bool:
    """Tell whether `text` says nothing but the facts that were read from it: beside them it only greets or asks.

    A model's words need not be the person's: what it read is taken for all that a single sentence says.
    """
    told = {fact.text for fact in facts}
    telling = [sentence for sentence in sentences(text) if not is_filler(sentence) and not is_question(sentence)]
    if len(telling) == 1 and any(fact.origin == Origin.MODEL for fact in facts):
        return True
    return all(clause in told or is_filler(clause) for sentence in telling for clause in clauses(sentence) or [sentence])


def _refuted(groups: Iterable[Sequence[Fact]]) -> dict[int, Fact]:
    """Return the facts that were contradicted or ended, by id; not those that only were told again and hold."""
    found: dict[int, Fact] = {}
    for facts in groups:
        by_id = {fact.id: fact for fact in facts}
        found |= {fact.id: fact for fact in facts if _is_refuted(fact, by_id)}
    return found


def _is_refuted(fact: Fact, by_id: Mapping[int, Fact]) -> bool:
    while fact.valid_until is not None:
        successor = by_id.get(fact.superseded_by or 0)
        if successor is None or (successor.origin == Origin.ADDED and successor.text != fact.text):
            return True
        if contradicts(successor.statement, fact.statement):
            return True
        fact = successor
    return False
