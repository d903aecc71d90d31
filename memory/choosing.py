"""Which of the passages that were found are worth their tokens: chosen by value, within the version's limits, each thing once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from memory.models.passages import READ
from memory.ranking import Ranked
from memory.words import words

# What a passage must be worth more for each e-fold of tokens it costs: short ones are preferred among equals.
_PRICE_OF_LENGTH: Final = 0.25
# A passage of at most so many times a fact's words says little else than the fact.
_LITTLE_ELSE: Final = 2.0


class WhyNot(StrEnum):
    """Why a passage that was found is not recalled."""

    BELOW_THRESHOLD = "below threshold"
    DUPLICATE = "duplicate"
    OVER_LIMIT = "over limit"
    OVER_BUDGET = "over budget"


@dataclass(frozen=True, slots=True)
class LeftOut:
    passage: Ranked
    reason: WhyNot


@dataclass(frozen=True, slots=True)
class Choice:
    """What is recalled, and what nearly was; each the best first."""

    passages: tuple[Ranked, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def choose(
    ranked: Sequence[Ranked], *, limit: int, budget_tokens: int, tokens_of: Callable[[Ranked], int], threshold: float = 0.0
) -> Choice:
    """Choose the passages that are worth their tokens, at most `limit` of them within `budget_tokens`.

    A passage that does not fit is passed over, not the end. What says the same as another is left out, and so is what says little
    else than a fact that was read from it, in favour of the fact.
    """
    tokens = [max(tokens_of(passage), 1) for passage in ranked]
    values = [passage.score - _PRICE_OF_LENGTH * math.log(cost) for passage, cost in zip(ranked, tokens, strict=True)]
    told_by_facts = _told_by_facts(ranked, values, threshold=threshold)
    chosen: set[int] = set()
    reasons: dict[int, WhyNot] = {}
    left, said = budget_tokens, set()
    for place in sorted(range(len(ranked)), key=lambda place: -values[place]):
        passage = ranked[place]
        if threshold and passage.score < threshold:
            reasons[place] = WhyNot.BELOW_THRESHOLD
        elif passage.id in told_by_facts or _said(passage) in said:
            reasons[place] = WhyNot.DUPLICATE
        elif len(chosen) >= limit:
            reasons[place] = WhyNot.OVER_LIMIT
        elif tokens[place] > left:
            reasons[place] = WhyNot.OVER_BUDGET
        else:
            chosen.add(place)
            said.add(_said(passage))
            left -= tokens[place]
    return Choice(
        tuple(ranked[place] for place in sorted(chosen)),
        tuple(LeftOut(ranked[place], reasons[place]) for place in sorted(reasons)),
    )


def _told_by_facts(ranked: Sequence[Ranked], values: list[float], *, threshold: float) -> set[int]:
    """Return the ids of passages in whose place a fact is told, and raise the facts' `values` to theirs."""
    places = {passage.id: place for place, passage in enumerate(ranked)}
    told = set()
    for place, fact in enumerate(ranked):
        if fact.origin not in READ or fact.source_id not in places or (threshold and fact.score < threshold):
            continue
        source = places[fact.source_id]
        if len(words(ranked[source].text)) <= _LITTLE_ELSE * len(words(fact.text)):
            told.add(fact.source_id)
            values[place] = max(values[place], values[source])
    return told


def _said(passage: Ranked) -> tuple[str, ...]:
    """Texts that differ in case, blanks and punctuation alone say the same; those without any word are compared as they are."""
    return tuple(words(passage.text)) or (passage.text,)
