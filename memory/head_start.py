"""A question is embedded while it is found out whose memories there are: neither has to wait for the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memory.embedders.client import Vector, embed
from memory.embedders.configured import EmbeddingModel
from memory.question import QUESTION_CHARS

# How many questions this process recalls for at this moment.
_under_way = 0


@dataclass(frozen=True, slots=True)
class HeadStart:
    """A question that is being embedded, as it was asked, while it is found out whose memories there are."""

    text: str
    model: EmbeddingModel
    making: asyncio.Task[list[Vector]]

    async def embedding(self, text: str, *, model: EmbeddingModel) -> Vector:
        """Return the vector of `text`: the one under way, unless `text` turned out to be read otherwise."""
        [vector] = await self.making if (text, model) == (self.text, self.model) else await embed_question(text, model=model)
        return vector


@contextlib.contextmanager
def head_start(question: str, models: Sequence[EmbeddingModel]) -> Iterator[HeadStart | None]:
    """Let the built-in embedder begin at once. It costs no money, but time in vain where there is nothing to recall.

    So a process that recalls for others already has no such time to spare.
    """
    global _under_way
    _under_way += 1
    ahead = None
    try:
        if _under_way == 1 and models[0].is_builtin:
            text = question[:QUESTION_CHARS]
            ahead = HeadStart(text, models[0], asyncio.create_task(embed_question(text, model=models[0])))
        yield ahead
    finally:
        _under_way -= 1
        if ahead is not None:
            ahead.making.add_done_callback(_look_at)
            ahead.making.cancel()


def _look_at(made: asyncio.Task[list[Vector]]) -> None:
    """What it failed of, if it did, was raised where its vector was wanted, or is of no interest: it need not be logged."""
    if not made.cancelled():
        made.exception()


async def embed_question(text: str, *, model: EmbeddingModel) -> list[Vector]:
    """The built-in embedder is about as quick as the cache, and asking both takes longer than either."""
    return await embed([text], model=model, cache_s=0 if model.is_builtin else None)
