"""What tells two questions apart that a vector takes for one: numbers, negations, opposites, names, and who does what to whom.

Cheap, and rather too careful: where it errs, a model is asked that need not have been. What it cannot see are names that are
written like any other word; docs/cost.md says so.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_TOKEN: Final = re.compile(r"\S+")
_EDGES: Final = " \t\n.,;:!?¿¡…\"'“”„«»()[]{}*<>"
_NUMBER_SIGN: Final = re.compile(r"#(?=\d)")  # "#12" is 12; "C#" is not C
_SENTENCE_END: Final = re.compile(r"[.!?…:]['\")\]]*$")
_NUMBERS: Final = frozenset(
    """zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million half
    first second third last once twice both""".split()  # noqa: SIM905 - to be read
)
# Of the languages that many chats are in; "n't" is found at a word's end.
_NEGATIONS: Final = frozenset(
    """no not never none nothing nobody nowhere neither nor without cannot cant dont doesnt didnt isnt arent wasnt wont wouldnt shouldnt
    nicht kein keine keinen keinem keiner keines nie niemals ohne nichts niemand weder
    ne pas jamais sans rien aucun aucune non ni nada nunca sin ningún ninguna mai senza niente não nem sem
    niet geen nooit zonder ikke ingen aldrig inte utan ei nie bez не нет без никогда нельзя 不 没 無 无""".split()  # noqa: SIM905
)
_OPPOSITES: Final = (
    *(("on", "off"), ("in", "out"), ("up", "down"), ("before", "after"), ("with", "without"), ("more", "less"), ("most", "least")),
    *(("to", "from"), ("left", "right"), ("old", "new"), ("open", "close"), ("opening", "closing"), ("start", "stop"), ("start", "end")),
    *(("begin", "end"), ("add", "remove"), ("enable", "disable"), ("buy", "sell"), ("send", "receive"), ("import", "export")),
    *(("increase", "decrease"), ("increase", "reduce"), ("raise", "lower"), ("cancel", "renew"), ("allow", "forbid"), ("yes", "no")),
    *(("accept", "refuse"), ("accept", "reject"), ("minimum", "maximum"), ("min", "max"), ("upgrade", "downgrade"), ("early", "late")),
    *(("cheapest", "dearest"), ("best", "worst"), ("highest", "lowest"), ("lock", "unlock"), ("hire", "fire"), ("arrive", "leave")),
)
# With one of these, another order of the same words is often another question.
_DIRECTIONS: Final = frozenset(
    """from to into onto than before after over instead von nach zu als vor statt de à vers que avant après desde hasta antes después
    da prima dopo van naar dan voor na""".split()  # noqa: SIM905
)
_PREFIXES: Final = ("un", "in", "im", "il", "ir", "dis", "non", "de", "re")
# How sentences begin: capitals that name nobody.
_STARTERS: Final = frozenset(
    """a about an and any are as at be but by can could did do does for from give has have he hello help hey hi how i if in is it let list
    many may might must my need of on one or please pls shall she should show so some tell thank thanks that the their there these they this
    to us was we were what what's when where which who whom whose why will with would you your i'm i'd i've can't don't isn't won't
    wie was wann wo wer warum welche welcher welches kann können ist sind ich gibt hat haben muss darf bitte hallo der die das ein eine
    comment quand où que quel quelle quels quelles qui pourquoi est-ce je puis-je le la les un une bonjour
    cómo como cuándo cuando dónde donde qué cuál quién puedo es el los las hola come quando dove quale chi posso
    hoe wat waar wanneer wie kan is er ik""".split()  # noqa: SIM905 - to be read
)


def contrast(one: str, other: str) -> str:
    """Return in what two texts differ that are nearly the same by their vectors; "" where in nothing that is seen here."""
    one, other = _plain(one), _plain(other)
    if _numbers(one) != _numbers(other):
        return "numbers"
    ours, theirs = _words(one), _words(other)
    if _negations(ours) != _negations(theirs):
        return "negations"
    if _are_opposed(set(ours), set(theirs)):
        return "opposites"
    if _names(one) - set(theirs) or _names(other) - set(ours):
        return "names"
    return "order" if _are_turned_around(ours, theirs) else ""


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\u2019", "'")


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _numbers(text: str) -> list[str]:
    """Return everything with a digit in it, addresses and number words, in order."""
    tokens = (token.strip(_EDGES).casefold() for token in _TOKEN.findall(_NUMBER_SIGN.sub("", text)))
    return [token for token in tokens if token in _NUMBERS or any(map(_is_telling, token))]


def _is_telling(mark: str) -> bool:
    return mark.isdigit() or mark in "@/\\_%+#" or unicodedata.category(mark) == "Sc"  # signs of currencies


def _negations(words: list[str]) -> int:
    return sum(word in _NEGATIONS or word.endswith("n't") for word in words)


def _are_opposed(ours: set[str], theirs: set[str]) -> bool:
    ours, theirs = ours - theirs, theirs - ours
    if any((one in ours and other in theirs) or (one in theirs and other in ours) for one, other in _OPPOSITES):
        return True
    return any(prefix + word in theirs for word in ours for prefix in _PREFIXES) or any(
        prefix + word in ours for word in theirs for prefix in _PREFIXES
    )


def _are_turned_around(ours: list[str], theirs: list[str]) -> bool:
    """Tell whether the words that both have stand in another order: all they have, or around a word that gives a direction."""
    common = set(ours) & set(theirs)
    if sorted(ours) != sorted(theirs) and common.isdisjoint(_DIRECTIONS):
        return False
    return [word for word in ours if word in common] != [word for word in theirs if word in common]


def _names(text: str) -> set[str]:
    """Return the words with a capital that stand for somebody or something, in small letters."""
    names, begins = set(), True
    for token in _TOKEN.findall(text):
        for word in _WORD.findall(token):
            small = word.casefold()
            if word != word.lower() and not (begins and small in _STARTERS) and small not in ("i", "i'm", "i'd", "i've", "i'll"):
                names.add(small)
            begins = False
        begins = begins or _SENTENCE_END.search(token) is not None
    return names
