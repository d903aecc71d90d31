"""Long texts in parts of 100 to 200 tokens: as much as a prompt should carry of one memory."""

from __future__ import annotations

import re
from typing import Final

from observability.api import count_tokens

MAX_TOKENS: Final = 200
# Pieces of at most 100 tokens fill a part to at least 100. A few tokens are spared, because counts do not quite add up.
_PIECE_TOKENS: Final = 92
_PART_TOKENS: Final = 196
_SENTENCE: Final = re.compile(r"[^\n]*?[.!?…][\"')\]]*\s+|[^\n]*\n\s*|[^\n]+")
_PIECE_CHARS: Final = 250
# A token is hardly ever shorter than a character, whatever the script.
_SURELY_SHORT_CHARS: Final = MAX_TOKENS


def parts(text: str) -> list[str]:
    """Return `text` in parts, in order, that together are `text`: one where it has at most 200 tokens.

    Otherwise each but the last has 100 to 200 tokens. Parts end where sentences end, unless one is too long by itself.
    """
    if len(text) <= _SURELY_SHORT_CHARS or (len(text) <= MAX_TOKENS * 20 and _tokens(text) <= MAX_TOKENS):
        return [text]
    found: list[str] = []
    current: list[str] = []
    size = 0
    for piece in _pieces(text):
        tokens = _tokens(piece)
        if current and size + tokens > _PART_TOKENS:
            found.append("".join(current))
            current, size = [], 0
        current.append(piece)
        size += tokens
    return [*found, "".join(current)]


def _pieces(text: str) -> list[str]:
    """Return `text` in sentences, the long ones cut between words."""
    found: list[str] = []
    for sentence in _SENTENCE.findall(text):
        waiting = [sentence]
        while waiting:
            piece = waiting.pop()
            # Counting a long text without blanks takes long: it is cut first.
            if len(piece) <= _PIECE_CHARS * 4 and _tokens(piece) <= _PIECE_TOKENS:
                found.append(piece)
            else:
                cut = _cut(piece)
                waiting += [piece[cut:], piece[:cut]]
    return found


def _cut(piece: str) -> int:
    """Return where to cut a long piece: after a blank near its middle, or in the middle."""
    middle = min(len(piece) // 2, _PIECE_CHARS * 2)
    blank = piece.rfind(" ", middle // 2, middle)
    return blank + 1 if blank > 0 else middle


def _tokens(text: str) -> int:
    return count_tokens(text, model="")
