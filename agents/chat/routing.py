"""Which model answers a turn: the version's own, or its cheaper one for what is simple, or once a budget asks to save.

What is simple a rule says, by length and words; where the version wants it, a model has the last word (`agents.chat.classifying`).
The cheaper model only goes first. Where it cannot answer, the version's own chain follows, so a message is answered all the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Final

from msgspec import structs

from agents.access import resolve_session, subject_name
from agents.chat.classifying import Verdict
from agents.chat.metering import price_of
from agents.chat.question import Question
from agents.versions.live import Answering, ModelChoice
from memory.api import people_numbered
from observability.api import (
    AttemptOutcome,
    Budget,
    Polled,
    Price,
    SavedBy,
    SettledAttempt,
    budgets_now,
    find_payers,
    list_sparing,
    refuses_unpriced,
)

_MOST_WORDS_SHOWN: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Who answers, and why.

    Attributes:
        answering: the version, with the models in the order in which they are asked.
        saved_by: what sent the turn to the cheaper model; NOTHING: it was not sent there.
        asks: the version's classifier is yet to say whether the message is simple (`decided`).
        why: a sentence for editors.
        own_price: what the version's own model costs; None: unknown.
    """

    answering: Answering
    why: str
    saved_by: SavedBy = SavedBy.NOTHING
    asks: bool = False
    own_price: Price | None = None

    def decided(self, verdict: Verdict) -> Route:
        """Return the route that the classifier's `verdict` leads to."""
        asked = named(_sure(self.answering.classifier))
        if verdict.is_simple:
            cheaper = _to_cheaper(self.answering, SavedBy.ROUTING, f"{asked} calls the message simple.")
            return replace(cheaper, own_price=self.own_price)
        said = "calls the message not simple" if verdict.said else f"was no help: {verdict.trouble}"
        return replace(self, asks=False, why=f"{named(self.answering.choices[0])} answers: {asked} {said}.")

    def with_savings(self, settled: Sequence[SettledAttempt]) -> tuple[SettledAttempt, ...]:
        """Return attempts with what those saved that the cheaper model answered."""
        if not self.saved_by:
            return tuple(settled)
        cheaper = self.answering.choices[0]
        return tuple(
            structs.replace(attempt, saved_by=self.saved_by, saved_usd=_saved(attempt, self.own_price))
            if attempt.outcome is not AttemptOutcome.FAILED and (attempt.provider, attempt.model) == (cheaper.provider.slug, cheaper.model)
            else attempt
            for attempt in settled
        )


_Sparing = Mapping[int, frozenset[tuple[str, str]] | None]
"""The budgets that ask for cheaper models, by id, and of whom: of these people, as (owner, name); None: of everybody."""


def _read_sparing() -> _Sparing:
    sparing = list_sparing()
    known = people_numbered({number for numbers in sparing.values() for number in numbers or ()})
    return {
        id: None if numbers is None else frozenset(known[number] for number in numbers if number in known)
        for id, numbers in sparing.items()
    }


sparing_now: Final[Polled[_Sparing]] = Polled(_read_sparing, fresh_for_s=1.0)
"""The budgets that ask for cheaper models, as this process last read them."""


async def route(question: Question, answering: Answering) -> Route:
    """Return who is to answer `question`.

    Raises:
        django.db.Error: budgets or prices were never read, and cannot be.
    """
    if answering.simple is None or not answering.choices:
        return route_by_rule(answering, question.message)
    own_price, budgets = await price_of(answering.choices[0]), await budgets_now.get()
    payers = await find_payers(question.caller.key_id) if budgets else frozenset()
    is_unpriced = own_price is not None and await price_of(answering.simple) is None
    if is_unpriced and refuses_unpriced(budgets, agent=answering.slug, payers=payers):
        why = f"{named(answering.choices[0])} answers: what {named(answering.simple)} costs is unknown, and a budget wants to know."
        return Route(answering=answering, why=why)
    saving = [budget for budget in budgets if budget.cheaper_at and budget.applies_to(answering.slug, payers=payers)]
    if saving and (budget := await _asking_to_save(question, saving)):
        found = _to_cheaper(answering, SavedBy.BUDGET, f"the budget “{budget}” asks for cheaper models.")
    else:
        found = route_by_rule(answering, question.message)
    return replace(found, own_price=own_price) if found.saved_by or found.asks else found


def route_by_rule(answering: Answering, message: str) -> Route:
    """Return who is to answer `message` as far as the version's rule says: without budgets, prices, and the classifier's verdict."""
    if not answering.choices:
        return Route(answering=answering, why="No model is set up.")
    own = named(answering.choices[0])
    if answering.simple is None:
        return Route(answering=answering, why=f"{own} answers: this version has no cheaper model.")
    length, most = len(message.strip()), answering.simple_max_chars
    if length > most:
        why = f"it has {length:,} characters, and a simple message has at most {most:,}." if most else "no message counts as simple."
        return Route(answering=answering, why=f"{own} answers: {why}")
    if word := word_in(message, answering.simple_not_words):
        return Route(answering=answering, why=f"{own} answers: the message contains “{word}”.")
    if answering.classifier is not None:
        return Route(answering=answering, asks=True, why=f"{named(answering.classifier)} is asked whether the message is simple.")
    return _to_cheaper(answering, SavedBy.ROUTING, "the message is simple.")


def rule_in_words(answering: Answering) -> str:
    """Return the version's rule as a sentence."""
    if not answering.choices:
        return "No model is set up yet."
    own, simple, most = named(answering.choices[0]), answering.simple, answering.simple_max_chars
    if simple is None:
        return f"There is no cheaper model: {own} answers every message."
    if not most:
        return f"{own} answers every message; {named(simple)} does once a budget asks for cheaper models."
    words = answering.simple_not_words
    none_of = ""
    if words:
        shown = ", ".join(f"“{word}”" for word in words[:_MOST_WORDS_SHOWN])
        more = f" and {len(words) - _MOST_WORDS_SHOWN} more" if len(words) > _MOST_WORDS_SHOWN else ""
        none_of = f" that contain none of {shown}{more}"
    judged = f"{' and' if words else ''} that {named(answering.classifier)} calls simple" if answering.classifier else ""
    return f"Messages of at most {most:,} characters{none_of}{judged} are answered by {named(simple)}, all others by {own}."


def word_in(message: str, words: Sequence[str]) -> str:
    """Return the first of `words` that the message contains as a whole word or phrase, whatever its capitals; "" where none is."""
    text = _plain(message)
    return next((word for word in words if (pattern := _pattern(word)) and pattern.search(text)), "")


def named(choice: ModelChoice) -> str:
    """Return what a model is called in a sentence."""
    return f"{choice.model or 'the default model'} at {'the built-in demo provider' if choice.provider.is_demo else choice.provider.slug}"


def _to_cheaper(answering: Answering, by: SavedBy, because: str) -> Route:
    simple = _sure(answering.simple)
    # The demo model never stands in for a real one that failed.
    behind = [choice for choice in answering.choices if choice != simple and not choice.provider.is_demo]
    return Route(answering=replace(answering, choices=(simple, *behind)), saved_by=by, why=f"{named(simple)} answers: {because}")


def _sure(choice: ModelChoice | None) -> ModelChoice:
    assert choice is not None
    return choice


async def _asking_to_save(question: Question, budgets: Sequence[Budget]) -> str:
    """Return the name of one of `budgets` that asks for cheaper models; "" where none does."""
    caller, session_id = question.caller, question.session_id
    # Of a session that is only now begun, nothing is spent yet.
    owner, session_id = resolve_session(caller, session_id) if session_id else (caller.owner, "")
    person = (owner, subject_name(caller, user=question.user, session_id=session_id))
    sparing = await sparing_now.get()
    for budget in budgets:
        if budget.pk in sparing and ((people := sparing[budget.pk]) is None or person in people):
            return budget.name
    return ""


def _saved(attempt: SettledAttempt, own_price: Price | None) -> Decimal:
    cost = attempt.cost_usd
    if own_price is None or cost is None:
        return Decimal(0)
    own_cost = own_price.cost(
        prompt_tokens=attempt.prompt_tokens or 0, cached_tokens=attempt.cached_tokens or 0, completion_tokens=attempt.completion_tokens or 0
    )
    return max(own_cost - cost, Decimal(0))


@lru_cache(maxsize=10_000)
def _pattern(word: str) -> re.Pattern[str] | None:
    parts = _plain(word).split()
    if not parts:
        return None
    before = r"(?<!\w)" if _has_edges(parts[0][0]) else ""
    after = r"(?!\w)" if _has_edges(parts[-1][-1]) else ""
    return re.compile(before + r"\s+".join(map(re.escape, parts)) + after)


def _has_edges(character: str) -> bool:
    """Whether words of this script stand apart: not so in Chinese, Japanese or Thai, nor always in Arabic, Hebrew or Korean."""
    return (character.isalnum() or character == "_") and unicodedata.category(character) != "Lo"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
