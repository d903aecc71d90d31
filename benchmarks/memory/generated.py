"""Passages that nobody said: words as frequent as in speech (Zipf), vectors in clusters as sentences about one subject have them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

from memory.embedders.client import Vector
from memory.features import PassageFeatures, features_of

DIMENSIONS: Final = 384
_VOCABULARY: Final = 20_000
_SUBJECTS: Final = 500
_SPREAD: Final = 0.9
"""How far a sentence is from its subject; of two sentences about one subject the cosine is then about 0.55."""
_SYLLABLES: Final = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "il")]


@dataclass(frozen=True, slots=True)
class Generated:
    """A passage of one to three sentences, with a vector for each."""

    text: str
    features: PassageFeatures
    vectors: tuple[Vector, ...]


class Generator:
    """Makes passages and questions; the same ones for the same seed."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self._words = ["".join(self._random.choices(_SYLLABLES, k=self._random.randint(2, 4))) for _ in range(_VOCABULARY)]
        self._chances = [1 / rank for rank in range(10, _VOCABULARY + 10)]
        self._subjects = self._directions(_SUBJECTS)

    def passages(self, count: int) -> list[Generated]:
        return [self._passage() for _ in range(count)]

    def question(self) -> str:
        first, second, third = self._said(3)
        return f"When did I {first} the {second} {third}?"

    def _passage(self) -> Generated:
        sentences = [" ".join(["I", *self._said(self._random.randint(5, 14))]) + "." for _ in range(self._random.randint(1, 3))]
        text = " ".join(sentences)
        subject = self._subjects[self._random.randrange(_SUBJECTS)]
        vectors = subject + _SPREAD * self._directions(len(sentences))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Generated(text, features_of(text, said_on=date(2024, 5, 8)), tuple(vectors.tolist()))

    def _said(self, count: int) -> list[str]:
        return self._random.choices(self._words, self._chances, k=count)

    def _directions(self, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        found = self._numbers.normal(size=(count, DIMENSIONS))
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True)).reshape(count, DIMENSIONS)
