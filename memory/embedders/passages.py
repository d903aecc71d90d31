"""Embedding the sentences of many passages at once, where one that the embedder will never take must not stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memory.embedders.client import EmbeddingFailed, EmbeddingModel, Vector, embed

_EMBED_S: Final = 20.0
_EMBED_PER_SENTENCE_S: Final = 0.2
# Where this is refused too, the settings are wrong and not the texts.
_SURELY_FINE: Final = "Hello, world."


async def embed_passages(passages: Sequence[Sequence[str]], *, model: EmbeddingModel, cache_s: int) -> list[list[Vector] | None]:
    """Return the vectors of each passage's sentences; None for a passage that the embedder refuses for good.

    Raises:
        EmbeddingFailed: it did not answer, or refuses whatever it is sent.
    """
    try:
        return [*await _embed_together(passages, model=model, cache_s=cache_s)]
    except EmbeddingFailed as error:
        if not error.is_final:
            raise
    try:
        await embed([_SURELY_FINE], model=model, cache_s=0)  # asked anew: it is the embedder that is to be tried
    except EmbeddingFailed as error:
        raise EmbeddingFailed(f"whatever is sent is refused: {error}") from error
    found: list[list[Vector] | None] = []
    for passage in passages:
        try:
            found += await _embed_together([passage], model=model, cache_s=cache_s)
        except EmbeddingFailed as error:
            if not error.is_final:
                raise
            found.append(None)
    return found


async def _embed_together(passages: Sequence[Sequence[str]], *, model: EmbeddingModel, cache_s: int) -> list[list[Vector]]:
    texts = [sentence for passage in passages for sentence in passage]
    vectors = iter(await embed(texts, model=model, timeout_s=_EMBED_S + _EMBED_PER_SENTENCE_S * len(texts), cache_s=cache_s))
    return [[next(vectors) for _ in passage] for passage in passages]
