"""Which of the passages that were found are worth their tokens: chosen by value, within the version's limits, each thing once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from memory.models.passages import READ
from memory.ranking import Ranked
from memory.words import words

# What a passage must be worth more for each e-fold of tokens it costs: short ones are preferred among equals.
_PRICE_OF_LENGTH: Final = 0.25
# A passage of at most so many times a fact's words says little else than the fact.
_LITTLE_ELSE: Final = 2.0


class Reason(StrEnum):
    """Why a passage that was found is not recalled."""

    BELOW_THRESHOLD = "below threshold"
    DUPLICATE = "duplicate"
    OUTDATED = "outdated"
    OVER_LIMIT = "over limit"
    OVER_BUDGET = "over budget"


@dataclass(frozen=True, slots=True)
class LeftOut:
    passage: Ranked
    reason: Reason


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
    else than a fact: in favour of the fact while it is true, and altogether once it is not.
    """
    tokens = [max(tokens_of(passage), 1) for passage in ranked]
    values = [passage.score - _PRICE_OF_LENGTH * math.log(cost) for passage, cost in zip(ranked, tokens, strict=True)]
    told = _Told(_facts_instead(ranked, values, threshold=threshold))
    chosen: set[int] = set()
    reasons: dict[int, Reason] = {}
    left = budget_tokens
    for place in sorted(range(len(ranked)), key=lambda place: -values[place]):
        passage = ranked[place]
        if threshold and passage.score < threshold:
            reasons[place] = Reason.BELOW_THRESHOLD
        elif reason := told.reason_against(passage):
            reasons[place] = reason
        elif len(chosen) >= limit:
            reasons[place] = Reason.OVER_LIMIT
        elif tokens[place] > left:
            reasons[place] = Reason.OVER_BUDGET
        else:
            chosen.add(place)
            told.add(passage)
            left -= tokens[place]
    return Choice(
        tuple(ranked[place] for place in sorted(chosen)),
        tuple(LeftOut(ranked[place], reasons[place]) for place in sorted(reasons)),
    )


def _facts_instead(ranked: Sequence[Ranked], values: list[float], *, threshold: float) -> frozenset[int]:
    """Return the ids of passages in whose place a fact is told, and raise the facts' `values` to theirs."""
    places = {passage.id: place for place, passage in enumerate(ranked)}
    instead = set()
    for place, fact in enumerate(ranked):
        source = (
            places.get(fact.source_id) if fact.source_id and fact.origin in READ and not (threshold and fact.score < threshold) else None
        )
        if source is not None and _says_little_but(ranked[source], len(words(fact.text))):
            instead.add(ranked[source].id)
            values[place] = max(values[place], values[source])
    return frozenset(instead)


def _says_little_but(passage: Ranked, fact_words: int) -> bool:
    return len(words(passage.text)) <= _LITTLE_ELSE * fact_words


@dataclass(slots=True)
class _Told:
    """What the chosen passages say, and for which passages a fact is told instead."""

    instead: frozenset[int]
    texts: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, passage: Ranked) -> None:
        self.texts.add(_said(passage))

    def reason_against(self, passage: Ranked) -> Reason | None:
        if passage.outdated_words and _says_little_but(passage, passage.outdated_words):
            return Reason.OUTDATED
        if passage.id in self.instead or _said(passage) in self.texts:
            return Reason.DUPLICATE
        return None


def _said(passage: Ranked) -> tuple[str, ...]:
    """Texts that differ in case, blanks and punctuation alone say the same; those without any word are compared as they are."""
    return tuple(words(passage.text)) or (passage.text,)
