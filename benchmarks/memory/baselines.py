"""The usual ways to recall lines of a conversation, for comparison: BM25, vectors of whole messages, and their rank fusion."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from memory.words import strip_names, terms

from .figures import BUDGETS, Outcome

Scores = NDArray[np.float64]

_K1: Final = 1.2
_B: Final = 0.75
_FUSION: Final = 60


class BM25:
    """Okapi BM25 over texts, each a document; stems, stop words and what is done about speakers' names are those of the server's recall."""

    def __init__(self, texts: Sequence[str], *, names: Collection[str]) -> None:
        self._names = names
        documents = [Counter(terms(strip_names(text, names))) for text in texts]
        lengths = np.array([document.total() for document in documents], float)
        self._norms = _K1 * (1 - _B + _B * lengths / max(lengths.mean(), 1e-9))
        self._postings: dict[str, list[tuple[int, int]]] = {}
        for place, document in enumerate(documents):
            for term, frequency in document.items():
                self._postings.setdefault(term, []).append((place, frequency))

    def scores(self, question: str) -> Scores:
        found = np.zeros(len(self._norms))
        for term in set(terms(strip_names(question, self._names))):
            postings = self._postings.get(term, [])
            idf = math.log(1 + (len(self._norms) - len(postings) + 0.5) / (len(postings) + 0.5))
            for place, frequency in postings:
                found[place] += idf * frequency * (_K1 + 1) / (frequency + self._norms[place])
        return found


def fuse(*rankings: Scores) -> Scores:
    """Return reciprocal rank fusion (k = 60) of scores for the same lines."""
    return sum((1 / (_FUSION + 1 + np.argsort(np.argsort(-scores, kind="stable"))) for scores in rankings), np.zeros(len(rankings[0])))


def outcome(scores: Scores, tokens: Sequence[int]) -> Outcome:
    """Return what is recalled by `scores` alone: the best first, and within a budget whatever still fits."""
    ranked = [int(place) for place in np.argsort(-scores, kind="stable")]
    return Outcome(ranked, tuple(_within(ranked, tokens, budget) for budget in BUDGETS))


def _within(ranked: Sequence[int], tokens: Sequence[int], budget: int) -> set[int]:
    chosen: set[int] = set()
    for place in ranked:
        if tokens[place] <= budget:
            chosen.add(place)
            budget -= tokens[place]
    return chosen
