"""What is known about a passage when it is written: its sentences, its terms, and what kinds of answers it may hold.

Each feature is one that recall's score uses; `docs/memory.md` says for what.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from memory.words import capitals, is_question, sentences, stem, strip_names, terms, words

TIME: Final = re.compile(
    r"\b(yesterday|today|tonight|tomorrow|last|next|ago|week|weekend|month|years?|morning|evening|monday|tuesday|wednesday|"
    r"thursday|friday|saturday|sunday|january|february|march|april|june|july|august|september|october|november|december|"
    r"summer|winter|spring|fall|recently|just|since|soon|20\d\d)\b",
    re.IGNORECASE,
)
NUMBER: Final = re.compile(
    r"\b(\d+|one|two|three|four|five|six|seven|eight|nine|ten|couple|few|several|once|twice|dozen|half|hundred|thousand|"
    r"first|second|third)\b",
    re.IGNORECASE,
)
REASON: Final = re.compile(
    r"\b(because|since|so that|reason|inspired|inspire|motivat\w+|want(ed)? to|to help|helps?|love|makes? me|for me|remind\w*)\b",
    re.IGNORECASE,
)
# A phrase, and the days it speaks of: from so many days after the day it was said, to so many.
_RELATIVE_DAYS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), first, last)
    for pattern, first, last in (
        (r"\b(yesterday|last night)\b", -1, -1),
        (r"\b(today|tonight|this morning|right now)\b", 0, 0),
        (r"\btomorrow\b", 1, 1),
        (r"\blast (week|weekend|mon\w*|tue\w*|wed\w*|thu\w*|fri\w*|sat\w*|sun\w*)\b", -9, -1),
        (r"\b(this|next|coming) (week|weekend)\b", 0, 9),
        (r"\bnext (mon|tues|wednes|thurs|fri|satur|sun)day\b", 1, 9),
        (r"\blast month\b", -45, -8),
        (r"\bnext month\b", 8, 45),
        (r"\b(few|couple of|couple) days ago\b", -4, -2),
        (r"\ba week ago\b", -8, -6),
        (r"\btwo weeks ago\b", -17, -11),
        (r"\bfew weeks ago\b", -28, -14),
    )
)


@dataclass(frozen=True, slots=True)
class SentenceFeatures:
    """A sentence as it is embedded: without speakers' names. `words` is how many it has, its weight within its passage."""

    text: str
    words: int
    is_question: bool


@dataclass(frozen=True, slots=True)
class TermFeatures:
    """A term of a passage: how often it occurs, and whether in one of its questions."""

    term: str
    frequency: int
    in_question: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Days that a passage speaks of, both ends included."""

    first: date
    last: date


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageFeatures:
    """What a passage is found by.

    Attributes:
        length: how many terms it has, repeats counted.
        word_count: how many words its sentences have.
        asks: the share of these words that stand in questions, 0 to 1.
        has_time, has_number, has_reason, has_name: whether it may answer when, how many, why, and who or where.
        spans: the days it speaks of ("yesterday").
    """

    sentences: tuple[SentenceFeatures, ...]
    terms: tuple[TermFeatures, ...]
    length: int
    word_count: int
    asks: float
    has_time: bool
    has_number: bool
    has_reason: bool
    has_name: bool
    spans: tuple[Span, ...]


def features_of(text: str, *, said_on: date, names: Collection[str] = ()) -> PassageFeatures:
    """Return the features of a passage that was said on the day `said_on` by one of two speakers, `names` being theirs."""
    plain = strip_names(text, names)
    found = tuple(SentenceFeatures(sentence, len(words(sentence)), is_question(sentence)) for sentence in sentences(plain))
    counted = Counter(terms(plain))
    asked = {term for sentence in found if sentence.is_question for term in terms(sentence.text)}
    word_count = sum(sentence.words for sentence in found)
    return PassageFeatures(
        sentences=found,
        terms=tuple(TermFeatures(term, frequency, term in asked) for term, frequency in counted.items()),
        length=counted.total(),
        word_count=word_count,
        asks=sum(sentence.words for sentence in found if sentence.is_question) / max(word_count, 1),
        has_time=bool(TIME.search(plain)),
        has_number=bool(NUMBER.search(plain)),
        has_reason=bool(REASON.search(plain)),
        has_name=bool(capitals(plain) - {stem(name.lower()) for name in names}),
        spans=spans_of(text, said_on=said_on),
    )


def spans_of(text: str, *, said_on: date) -> tuple[Span, ...]:
    """Return the days that `text` speaks of, counted from the day it was said on."""
    return tuple(
        Span(said_on + timedelta(first), said_on + timedelta(last)) for pattern, first, last in _RELATIVE_DAYS if pattern.search(text)
    )
