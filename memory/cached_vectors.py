"""Forgetting the vectors of an erased person's sentences and questions that are still in the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from django.conf import settings

from memory.elsewhere import SubjectErased
from memory.embedders.cache import forget_texts
from memory.embedders.configured import usable_models
from memory.parts import parts
from memory.question import QUESTION_CHARS, in_first_person
from memory.words import sentences, strip_names


async def forget_cached_vectors(erased: SubjectErased) -> int:
    """Delete from the cache what was embedded of `erased`, and return how many vectors that were.

    Raises:
        Exception: the cache did not confirm.
    """
    models = usable_models()
    if not (settings.EMBEDDING_CACHE_S and models and erased.texts):
        return 0
    texts = await asyncio.to_thread(lambda: list(dict.fromkeys(_embedded(erased))))
    return await forget_texts(texts, models=models)


def _embedded(erased: SubjectErased) -> Iterator[str]:
    """Yield what was embedded of texts: their sentences, and themselves as questions, with and without the speakers' names."""
    for names in {(), erased.names}:
        for text in erased.texts:
            yield in_first_person(text[:QUESTION_CHARS], names)
            for part in parts(text):
                yield from sentences(strip_names(part, names))
