"""What a question asks for, read from its words: whom it is about, which dates it names, which form its answer has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

from memory.words import strip_names, terms

# What a question is about stands in its beginning; the rest of a pasted document would only slow recall down.
QUESTION_CHARS: Final = 2000
# A date without a year may mean any of this many years back.
_YEARS_BACK: Final = 20
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH: Final = (
    "january|february|march|april|may|june|july|august|september|october|november|december|jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec"
)
_DAY_MONTH: Final = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({_MONTH})\b,? ?(\d{{4}})?")
_MONTH_DAY: Final = re.compile(rf"\b({_MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?\b,? ?(\d{{4}})?")
_ISO: Final = re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b")
_MONTH_YEAR: Final = re.compile(rf"\b(in )?({_MONTH})\b,? ?(?:of )?(\d{{4}})?")
_YEAR: Final = re.compile(r"\b(20\d\d)\b")

_ASKS_WHEN: Final = re.compile(
    r"^when\b|\bwhen did\b|\bwhat (date|day|month|year|time)\b|\bwhich (year|month|day)\b|how long ago", re.IGNORECASE
)
_ASKS_NUMBER: Final = re.compile(r"\bhow (many|much|often|long|old)\b", re.IGNORECASE)
_ASKS_WHY: Final = re.compile(r"^why\b|reason|inspired|motivat", re.IGNORECASE)
_ASKS_NAME: Final = re.compile(
    r"\bwhere\b|^who\b|\bwhose\b|\b(names?|called|named|title|city|cities|country|countries|states?|places?|towns?|"
    r"areas?|books?|novels?|series|shows?|movies?|films?|games?|bands?|artists?|musicians?|songs?|brands?|teams?|"
    r"compan(y|ies)|authors?|locations?|restaurants?|venues?|languages?|breeds?|holidays?)\b",
    re.IGNORECASE,
)
_FIRST_PERSON: Final = re.compile(r"\b(I|my|me|mine|we|our)\b")
_SECOND_PERSON: Final = re.compile(r"\b(you|your|yours)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voices:
    """Who speaks in somebody's conversations, and under which names.

    Attributes:
        names: the speaker ("user", "agent") that each name stands for, {"Ava": "agent"}.
        asker: the speaker that `I` means in a question; "" where the question comes from neither of them.
        answerer: the speaker that `you` means; "" likewise.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    asker: str = "user"
    answerer: str = "agent"


@dataclass(frozen=True, slots=True)
class NamedDate:
    """A date as a question names it: as much of it as was said."""

    day: int | None
    month: int | None
    year: int | None


@dataclass(frozen=True, slots=True)
class DateRange:
    """Days, both included, and what it is worth (0 to 1) that a passage was said on one of them."""

    first: date
    last: date
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a question asks for.

    Attributes:
        to_embed: the question as its answer's speaker would have said it: names are replaced by `I`.
        terms: the stems of its content words, each once, without names.
        speaker: the one speaker it is about, or "".
        forms: how much each form of answer counts, 0 to 1: "time", "number", "reason", "name".
        said: when the answer may have been said.
        spoken_of: the days asked about, as (first, last).
    """

    to_embed: str
    terms: tuple[str, ...]
    speaker: str
    forms: Mapping[str, float]
    said: tuple[DateRange, ...]
    spoken_of: tuple[tuple[date, date], ...]


def read_question(question: str, *, voices: Voices, today: date) -> Asked:
    """Return what `question` asks for. Dates without a year mean those up to and including `today`'s year."""
    said: list[DateRange] = []
    spoken_of: list[tuple[date, date]] = []
    for named in dates_named(question):
        for year in [named.year] if named.year is not None else range(today.year - _YEARS_BACK, today.year + 1):
            try:
                days = _days_of(named, year)
                said += _when_said(named, *days)
            except (ValueError, OverflowError):  # 30 February, or 29 February of most years
                continue
            spoken_of.append(days)
    return Asked(
        to_embed=in_first_person(question, voices.names),
        terms=tuple(sorted(set(terms(strip_names(question, voices.names))))),
        speaker=speaker_asked(question, voices=voices),
        forms=forms_asked(question),
        said=tuple(said),
        spoken_of=tuple(spoken_of),
    )


def dates_named(question: str) -> list[NamedDate]:
    """Return the dates that `question` names: days, or else months, or else years."""
    text = question.lower()
    found = [NamedDate(int(day), _month(month), _year(year)) for day, month, year in _DAY_MONTH.findall(text)]
    found += [NamedDate(int(day), _month(month), _year(year)) for month, day, year in _MONTH_DAY.findall(text)]
    found = found or [NamedDate(int(day), int(month), int(year)) for year, month, day in _ISO.findall(text)]
    found = found or list(_months_named(text))
    return found or [NamedDate(None, None, int(year)) for year in _YEAR.findall(text)]


def forms_asked(question: str) -> dict[str, float]:
    """Return how much each form of answer counts. A time is asked for plainly; the others are only likely, and count less."""
    if _ASKS_WHEN.search(question):
        forms = {"time": 1.0}
    elif _ASKS_NUMBER.search(question):
        forms = {"number": 0.4}
    elif _ASKS_WHY.search(question):
        forms = {"reason": 0.4}
    else:
        forms = {}
    if _ASKS_NAME.search(question):
        forms["name"] = 0.4
    return forms


def speaker_asked(question: str, *, voices: Voices) -> str:
    """Return the one speaker that `question` is about, by name, `I` or `you`; "" where there are none or several."""
    found = {speaker for name, speaker in voices.names.items() if _word(name).search(question)}
    if voices.asker and _FIRST_PERSON.search(question):
        found.add(voices.asker)
    elif voices.answerer and _SECOND_PERSON.search(question):
        found.add(voices.answerer)
    return found.pop() if len(found) == 1 else ""


def in_first_person(question: str, names: Iterable[str]) -> str:
    """Passages speak of their speaker as `I`: "When did Ava paint her room?" is closer to them as "When did I paint her room?"."""
    for name in names:
        question = re.sub(rf"\b{re.escape(name)}(?:'s|’s)", "my", question)  # noqa: RUF001 - the typographic apostrophe
        question = _word(name).sub("I", question)
    return question


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(name)}\b")


def _months_named(text: str) -> Iterator[NamedDate]:
    for preposition, month, year in _MONTH_YEAR.findall(text):
        if month in ("may", "mar") and not year and not preposition:
            continue  # most often the verb
        yield NamedDate(None, _month(month), _year(year))


def _month(name: str) -> int:
    return _MONTHS.index(name[:3]) + 1


def _year(digits: str) -> int | None:
    return int(digits) if digits else None


def _days_of(named: NamedDate, year: int) -> tuple[date, date]:
    if named.month is None:
        return date(year, 1, 1), date(year, 12, 31)
    if named.day is not None:
        return (day := date(year, named.month, named.day)), day
    return (first := date(year, named.month, 1)), _next_month(first) - timedelta(days=1)


def _when_said(named: NamedDate, first: date, last: date) -> list[DateRange]:
    """People tell of a day within days; of a month, in it or in the next."""
    if named.month is None:
        return [DateRange(first, last, 0.5)]
    if named.day is None:
        next_month = last + timedelta(days=1)
        return [DateRange(first, last, 1.0), DateRange(next_month, _next_month(next_month) - timedelta(days=1), 0.5)]
    spans = ((0, 2, 1.0), (-1, 8, 0.6), (-7, 31, 0.3))
    return [DateRange(first + timedelta(days=early), first + timedelta(days=late), value) for early, late, value in spans]


def _next_month(first: date) -> date:
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)
