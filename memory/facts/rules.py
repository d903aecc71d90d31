"""Reading statements from what a person says, in English, by rules.

A wrong fact is worse than a missing one: rules match whole clauses from their beginning, names and places must be capitalised, and
whatever may be a question, a quotation, a supposition or a text to work on is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from memory.facts.patterns import CORRECTION, RULES, Rule
from memory.words import is_question, sentences, words

# Longer ones are pasted: somebody else's words, most likely.
MAX_CHARS: Final = 1500
_MAX_SENTENCE_CHARS: Final = 300

_QUOTED: Final = re.compile(r"[\"“”«»`]|(?:^|\s)['‘]\w|^\s*>", re.MULTILINE)  # noqa: RUF001 - typographic quotes
_TO_WORK_ON: Final = re.compile(
    r"\b(?:translat\w+|rewrit\w+|rephras\w+|proofread\w*|paraphras\w+|summari[sz]e|correct (?:this|the|my (?:text|grammar|sentence))|"
    r"(?:write|draft|compose|create|finish|continue)(?: me| us)? (?:an?|the|this|my|some)|poems?|story|stories|lyrics|essay|"
    r"screenplay|dialogue|role[- ]?play\w*|pretend\w*|act as|act like|imagine|following (?:text|sentence|message|letter|email)|"
    r"as if|fictional|character)\b",
    re.IGNORECASE,
)
_SUPPOSED: Final = re.compile(
    r"\b(?:if|unless|suppose|supposing|assum\w+|let's say|lets say|say that|would|could|should|might|maybe|perhaps|possibly|probably|wish|"
    r"hope|hoping|whether|for example|for instance|e\.g|hypothetical\w*|jok(?:e|es|ing)|just kidding|kidding|i think|i guess|i doubt|"
    r"not sure|imagine|dream\w*|almost|nearly)\b|\blol\b",
    re.IGNORECASE,
)
_OPENER: Final = re.compile(
    r"(?:(?:actually|no|nope|well|oh|ok|okay|yes|yeah|yep|sure|(?:hi|hey|hello)(?: there| everyone| all)?|"
    r"good (?:morning|evening|afternoon|day)|by the way|btw|sorry|and|so|but|also|now|right|fyi|please note|note|just so you know|"
    r"for the record|in fact|wait|hmm|correction|thanks|thank you|to be clear|as i said|(?:please )?(?:remember|note|know)(?: that)?|"
    r"you should know(?: that)?|i meant(?: that)?|i mean)\b[\s,:;!.–—-]*)+",  # noqa: RUF001 - a dash
    re.IGNORECASE,
)
_GREETING: Final = re.compile(r"(?:hi|hey|hello|good (?:morning|evening|afternoon|day))\b", re.IGNORECASE)
_CLAUSE_END: Final = re.compile(
    r"\s*(?:[,;]\s*(?:and|but|so)?|\b(?:and|but))\s+(?=(?:I|my|we|please call|call me|everyone calls)\b(?!\w))|;\s+"
)
_SINGULAR: Final = frozenset({"always", "series", "news", "tennis"})
_ARTICLES: Final = frozenset({"a", "an", "the", "some", "my", "very", "really"})
_BRITISH: Final = {"color": "colour", "colors": "colour", "flavor": "flavour", "flavors": "flavour"}
# Names that are words as well: taken for a name, they would be left out of what is remembered wherever a sentence begins with them.
_COMMON_WORDS: Final = frozenset(
    """april art august autumn bill chance charity christian dawn dean drew faith frank grace grant guy hope hunter iris ivy jack joy june
    lance lily mark mason max may mercy miles olive pat pearl penny rain ray rich rob rose ruby sage sandy sky sue summer sunny victor
    violet will winter""".split()  # noqa: SIM905 - to be read
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What somebody said of themselves.

    Attributes:
        attribute: what it is about: "name", "home", "favourite:colour", "opinion:coffee". Of those of one attribute the newest
            holds; only of "preference"s several do, as long as they are about different things.
        text: the words, to be read alone.
        value: what they say of it, normalised: "berlin", "not coffee".
        ends: they only end what was said before: "I no longer live in Berlin".
        corrects: of a `CORRECTION`, the value that is wrong. What it is about stands in what was said before.
    """

    attribute: str
    text: str
    value: str = ""
    ends: bool = False
    corrects: str = ""


def statements_in(text: str) -> list[Statement]:
    """Return the statements that a person makes of themselves in `text`, in order."""
    if len(text) > MAX_CHARS or _QUOTED.search(text) or _TO_WORK_ON.search(text):
        return []
    found: list[Statement] = []
    greeted = False
    for sentence in sentences(text):
        greeted = greeted or bool(_GREETING.match(sentence))
        for clause in clauses(sentence):
            statement = _read(clause, greeted=greeted)
            if statement and statement not in found:
                found.append(statement)
        greeted = bool(_GREETING.match(sentence))
    return found


def clauses(sentence: str) -> list[str]:
    """Return a sentence in the parts that may each state something: "My name is Ada" and "I live in Ulm". One part is left as it is."""
    if len(sentence) > _MAX_SENTENCE_CHARS or is_question(sentence) or _SUPPOSED.search(sentence):
        return []
    parts = [part.strip(" ,;") for part in _CLAUSE_END.split(_plain(sentence))]
    parts = [part for part in parts if words(part)]
    return [sentence] if len(parts) == 1 else [part[0].upper() + part[1:] for part in parts]


def _read(clause: str, *, greeted: bool) -> Statement | None:
    plain = _plain(clause).rstrip(" .!…")
    for rule in RULES:
        if (rule.after_greeting and not greeted) or not (match := rule.pattern.fullmatch(plain)):
            continue
        return _statement(rule, match, clause)
    return None


def _statement(rule: Rule, match: re.Match[str], clause: str) -> Statement:
    groups = {name: normalised(value) for name, value in match.groupdict().items() if value}
    attribute = rule.attribute.format(**groups)[:100]
    value = groups.get("value", "")
    return Statement(attribute, clause, f"not {value}" if rule.denies else value, rule.ends, groups.get("wrong", ""))


def _plain(sentence: str) -> str:
    """Return a sentence as rules read it: straight apostrophes, single blanks, and none of the words that only open it."""
    plain = " ".join(sentence.replace("\u2019", "'").split())
    opener = _OPENER.match(plain)
    return plain[opener.end() :] if opener and opener.end() < len(plain) else plain


def normalised(value: str) -> str:
    """Return what tells two values apart: their words in lower case and in the singular, without articles."""
    return " ".join(_words_of(value))


def _words_of(value: str) -> Iterator[str]:
    for word in value.split():
        plain = word.strip(".,;:!'()").lower()
        if not plain or plain in _ARTICLES:
            continue
        is_plural = word.islower() and len(plain) > 3 and plain.endswith("s") and not plain.endswith(("ss", "us", "is"))
        is_plural = is_plural and plain not in _SINGULAR
        yield _BRITISH.get(plain, plain.removesuffix("s") if is_plural else plain)


def read_as(attribute: str, text: str) -> Statement:
    """Return the statement that a stored fact about `attribute` is: with its value, where a rule can tell it from the words."""
    plain = _plain(text).rstrip(" .!…")
    for rule in RULES:
        if (match := rule.pattern.fullmatch(plain)) and (statement := _statement(rule, match, text)).attribute in (attribute, CORRECTION):
            return replace(statement, attribute=attribute)
    return Statement(attribute, text)


def first_name(text: str) -> str:
    """Return the first name that a stored fact about `name` tells; "" where there is none that can be told from other words."""
    for rule in RULES:
        if rule.attribute == "name" and (match := rule.pattern.fullmatch(_plain(text).rstrip(" .!…"))):
            name = match["value"].split()[0]
            return name if len(name) > 2 and name.isalpha() and name.lower() not in _COMMON_WORDS else ""
    return ""
