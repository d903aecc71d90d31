"""The words of a text: what of them counts, and where its sentences end. Writing and recall read texts the same way."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final

import snowballstemmer

# Words that tell nothing about a subject, as people use them in conversations.
STOP_WORDS: Final = frozenset(
    """a about after again all also am an and any are as at be because been before being both but by can could did do does
    doing done down each for from further get gets getting got had has have having he her here hers him his how i if in into is it its
    just let like me mention mentioned more most my myself no nor not of off on once one only or other our out over own really s said
    same say says she should so some such t than that the their them then there these they this those though through to too under until
    up us very was we well were what when where which while who whom why will with would yeah yes you your yours don didn doesn isn wasn
    won ve re ll d m im hey hi hello wow thanks thank oh ok okay according""".split()  # noqa: SIM905 - to be read
)
# Said to be polite: a text of nothing else is not worth remembering.
_FILLERS: Final = frozenset(
    """absolutely afternoon alright appreciate awesome bye care certainly cheers cool evening fine glad good goodbye
    great haha happy help hmm lol lot morning much nice night perfect please pleasure problem sorry sounds sure
    take thx today understood welcome yep yup""".split()  # noqa: SIM905 - to be read
)
_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_HAS_WORD: Final = re.compile(r"\w")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\n+")
_CAPITALISED: Final = re.compile(r"(?<!^)(?<![.!?\"'(] )\b[A-Z][\w'\u2019]*")
# What is longer is no word, and would burden the index.
_LONGEST_CHARS: Final = 64
_OF_THE_SPEAKER: Final = frozenset({"I", "I'm", "I've", "I'll", "I'd"})

_stemmer = snowballstemmer.stemmer("english")


@lru_cache(100_000)
def stem(word: str) -> str:
    """Return the stem of a lower-case English word (Snowball's English stemmer)."""
    return str(_stemmer.stemWord(word))


def words(text: str) -> list[str]:
    """Return the words of `text` in lower case, in order; a possessive 's is left out."""
    found = _WORD.findall(text.lower().replace("\u2019", "'"))
    return [word.removesuffix("'s") for word in found]


def terms(text: str) -> list[str]:
    """Return the stems of the words that tell something about a subject, in order, with repeats."""
    return [stem(word[:_LONGEST_CHARS]) for word in words(text) if not _is_stop_word(word)]


def sentences(text: str) -> list[str]:
    """Return the sentences of `text`, in order, without those that hold no letter or digit. A line's end ends one too."""
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if _HAS_WORD.search(sentence)]


def is_question(sentence: str) -> bool:
    return sentence.rstrip("\"')").endswith("?")


def is_filler(text: str) -> bool:
    """Tell whether `text` is a greeting, thanks or the like, of which nothing is worth remembering."""
    return all(_is_stop_word(word) or word in _FILLERS for word in words(text))


def strip_names(text: str, names: Collection[str]) -> str:
    """Return `text` without the speakers' names: who speaks is a column, and a name in a vector hides what was said.

    Spaces are put in order; line ends stay.
    """
    for name in names:
        text = re.sub(rf"\b{re.escape(name)}(?:['\u2019]s)?\b", "", text)
    text = re.sub(r"[^\S\n]+", " ", text)  # first, or the next patterns would take quadratic time on long blanks
    text = re.sub(r" ([,.!?;:])", r"\1", text)
    text = re.sub(r", ?([.!?])", r"\1", text)
    return text.lstrip(" ,\n").rstrip()


def capitals(text: str) -> set[str]:
    """Return the stems of the capitalised words of `text` that do not begin a sentence: names of people, places and things."""
    found = set()
    for sentence in sentences(text):
        for match in _CAPITALISED.finditer(sentence):
            if match[0].replace("\u2019", "'") not in _OF_THE_SPEAKER:
                found.add(stem(words(match[0])[0]))
    return found


def _is_stop_word(word: str) -> bool:
    return word in STOP_WORDS or word.split("'")[0] in STOP_WORDS
