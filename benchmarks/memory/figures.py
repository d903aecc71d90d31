"""Figures of recall: what share of a question's evidence was among the first lines recalled, or within so many tokens."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

PLACES: Final = (5, 10, 20)
BUDGETS: Final = (200, 400, 800)
NAMES: Final = (*(f"r@{place}" for place in PLACES), "mrr", *(f"r@{tokens}tokens" for tokens in BUDGETS))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was recalled for one question.

    Attributes:
        ranked: the lines' places, the best first, each once.
        within: for each of `BUDGETS`, the lines that were chosen for so many tokens.
    """

    ranked: Sequence[int]
    within: tuple[Set[int], ...]


def score(outcome: Outcome, evidence: Set[int]) -> tuple[float, ...]:
    """Return the figures `NAMES` of one question: shares of its evidence from 0 to 1; `mrr` is 1 / the first evidence's rank."""
    firsts = [len(evidence & set(outcome.ranked[:place])) / len(evidence) for place in PLACES]
    rank = next((rank for rank, line in enumerate(outcome.ranked, start=1) if line in evidence), None)
    chosen = [len(evidence & lines) / len(evidence) for lines in outcome.within]
    return (*firsts, 1 / rank if rank else 0.0, *chosen)


def mean(scores: Sequence[tuple[float, ...]]) -> dict[str, float]:
    """Return the mean over questions: recall in per cent, `mrr` from 0 to 1."""
    means = [sum(column) / len(scores) for column in zip(*scores, strict=True)] if scores else [0.0] * len(NAMES)
    return {name: round(value, 4) if name == "mrr" else round(100 * value, 2) for name, value in zip(NAMES, means, strict=True)}
