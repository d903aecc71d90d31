"""Which of the passages that were found are worth their tokens: chosen by value, within the version's limits, each thing once."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from memory.models.passages import READ
from memory.ranking import Ranked
from memory.words import words

# What a passage must be worth more for each e-fold of tokens it costs: short ones are preferred among equals.
_PRICE_OF_LENGTH: Final = 0.25
# An answer of at most so many words needs its question, and is one when the passage before is so much like the question asked.
_SHORT_WORDS: Final = 15
_SURELY_ANSWERS: Final = 1.0
# A passage of at most so many times a fact's words says little else than the fact.
_LITTLE_ELSE: Final = 2.0


class WhyNot(StrEnum):
    """Why a passage that was found is not recalled."""

    BELOW_THRESHOLD = "below threshold"
    THE_QUESTION = "the question itself"
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
    ranked: Sequence[Ranked],
    *,
    question: str = "",
    limit: int,
    budget_tokens: int,
    tokens_of: Callable[[Ranked], int],
    threshold: float = 0.0,
) -> Choice:
    """Choose the passages that are worth their tokens, at most `limit` of them within `budget_tokens`.

    A passage that does not fit is passed over, not the end. What says the same as another is left out, and so is what says little
    else than a fact that was read from it, in favour of the fact. A short answer brings the question along that it answers. Where
    `question` was asked before in the same words, that tells nothing new and is left out.

    Args:
        tokens_of: what a passage costs: one for each of its words or more.
    """
    tokens = _Tokens(ranked, tokens_of)
    values = _Values(ranked, tokens, threshold=threshold)
    told_by_facts = _told_by_facts(ranked, values, threshold=threshold)
    choosing = _Choosing(
        ranked, tokens, told_by_facts, question=question, threshold=threshold, passages_left=limit, tokens_left=budget_tokens
    )
    for place in values.best_first(may_fit=choosing.may_fit):
        if choosing.is_full:
            break
        choosing.consider(place)
    choosing.leave_the_rest()
    return Choice(
        tuple(ranked[place] for place in sorted(choosing.chosen)),
        tuple(LeftOut(ranked[place], choosing.left_out[place]) for place in sorted(choosing.left_out.keys() - choosing.chosen)),
    )


class _Tokens(dict[int, int]):
    """What each of `ranked` costs, by place, counted when it is asked for: of most never.

    `at_least`: what it costs at least, as a text has one token or more for each of its words.
    """

    def __init__(self, ranked: Sequence[Ranked], tokens_of: Callable[[Ranked], int]) -> None:
        super().__init__()
        self.at_least = [max(len(passage.text.split()), 1) for passage in ranked]
        self._ranked = ranked
        self._tokens_of = tokens_of

    def __missing__(self, place: int) -> int:
        cost = self[place] = max(self._tokens_of(self._ranked[place]), 1)
        return cost


class _Values(dict[int, float]):
    """What each of `ranked` is worth, by place, known when it is asked for, as its tokens have to be counted for that."""

    def __init__(self, ranked: Sequence[Ranked], tokens: _Tokens, *, threshold: float) -> None:
        super().__init__()
        self._ranked = ranked
        self._tokens = tokens
        self._threshold = threshold

    def __missing__(self, place: int) -> float:
        value = self[place] = -math.inf if self._is_below(place) else self._less_length(place, self._tokens[place])
        return value

    def best_first(self, *, may_fit: Callable[[int], bool]) -> Iterator[int]:
        """Give the places that may fit and reach the threshold, the most valuable first. No more tokens are counted than it takes."""
        at_least = self._tokens.at_least
        waiting = [
            (-(self[place] if place in self else self._less_length(place, at_least[place])), place)
            for place in range(len(self._ranked))
            if not self._is_below(place)
        ]
        heapq.heapify(waiting)
        while waiting:
            at_most, place = waiting[0]
            if not may_fit(place):
                heapq.heappop(waiting)
            elif -self[place] > at_most:
                heapq.heapreplace(waiting, (-self[place], place))
            else:
                heapq.heappop(waiting)
                yield place

    def _is_below(self, place: int) -> bool:
        return bool(self._threshold) and self._ranked[place].score < self._threshold

    def _less_length(self, place: int, tokens: int) -> float:
        return self._ranked[place].score - _PRICE_OF_LENGTH * math.log(tokens)


class _Choosing:
    """A choice while it is made. Passages are named by their places in `ranked`."""

    def __init__(
        self,
        ranked: Sequence[Ranked],
        tokens: _Tokens,
        told: Set[int],
        *,
        question: str,
        threshold: float,
        passages_left: int,
        tokens_left: int,
    ) -> None:
        self.chosen: set[int] = set()
        self.left_out: dict[int, WhyNot] = {}
        self._ranked = ranked
        self._tokens = tokens
        self._told = told
        self._question = _said(question)
        self._threshold = threshold
        self._passages_left = passages_left
        self._tokens_left = tokens_left
        self._said: set[tuple[str, ...]] = set()
        self._places = {(passage.owner_id, passage.seq): place for place, passage in enumerate(ranked)}

    @property
    def is_full(self) -> bool:
        return self._passages_left < 1

    def may_fit(self, place: int) -> bool:
        """Tell whether a passage may be within the budget, without counting its tokens."""
        return self._tokens.at_least[place] <= self._tokens_left

    def leave_the_rest(self) -> None:
        """Note why the passages that were not considered are left out."""
        for place, passage in enumerate(self._ranked):
            if place not in self.chosen:
                below = self._threshold and passage.score < self._threshold
                over = WhyNot.OVER_LIMIT if self.is_full else WhyNot.OVER_BUDGET
                self.left_out.setdefault(place, WhyNot.BELOW_THRESHOLD if below else over)

    def consider(self, place: int) -> None:
        if place in self.chosen:
            return
        reason = self._reason_against(place)
        if reason:
            self.left_out[place] = reason
            return
        self._take(place)
        question = self._question_before(self._ranked[place])
        if question is not None and self._fits(question):
            self._take(question)

    def _fits(self, place: int) -> bool:
        said = _said(self._ranked[place].text)
        is_new = place not in self.chosen and said not in self._said and said != self._question
        return is_new and self._passages_left > 0 and self._tokens[place] <= self._tokens_left

    def _reason_against(self, place: int) -> WhyNot | None:
        passage = self._ranked[place]
        if self._threshold and passage.score < self._threshold:
            return WhyNot.BELOW_THRESHOLD
        said = _said(passage.text)
        if said == self._question:
            return WhyNot.THE_QUESTION
        if passage.id in self._told or said in self._said:
            return WhyNot.DUPLICATE
        if self.is_full:
            return WhyNot.OVER_LIMIT
        return WhyNot.OVER_BUDGET if self._tokens[place] > self._tokens_left else None

    def _take(self, place: int) -> None:
        self.chosen.add(place)
        self._said.add(_said(self._ranked[place].text))
        self._passages_left -= 1
        self._tokens_left -= self._tokens[place]

    def _question_before(self, passage: Ranked) -> int | None:
        """Return the question without which `passage` says little: the one it answers in a few words."""
        answers = passage.features.get("answers_question", 0.0) >= _SURELY_ANSWERS
        return self._places.get((passage.owner_id, passage.seq - 1)) if answers and len(words(passage.text)) <= _SHORT_WORDS else None


def _told_by_facts(ranked: Sequence[Ranked], values: _Values, *, threshold: float) -> set[int]:
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


def _said(text: str) -> tuple[str, ...]:
    """Texts that differ in case, blanks and punctuation alone say the same; those without any word are compared as they are."""
    return tuple(words(text)) or (text,)
