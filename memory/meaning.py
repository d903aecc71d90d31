"""What a text means, as a vector: for who compares texts that are no memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from memory.embedders.client import Vector, embed
from memory.embedders.configured import embedding_model
from memory.embedders.costs import Payer, charged_to
from observability.logs import in_words

log = structlog.get_logger(__name__)

_LONGEST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Meaning:
    """A vector of length 1, and what made it: only vectors of the same `model` can be compared."""

    vector: Vector
    model: str


async def meaning_of(text: str, *, payer: Payer) -> Meaning | None:
    """Return what `text` means, by the embedding model that EMBEDDING_* name; None where there is none, or it fails.

    What it costs is `payer`'s. It takes at most five seconds; who is in more of a hurry need not wait.
    """
    model = embedding_model()
    if model is None:
        return None
    try:
        with charged_to(payer, waits=False):
            [vector] = await embed([text], model=model, timeout_s=_LONGEST_S)
    except Exception as error:  # of the network, of a budget, of the database: nobody fails for want of it
        log.warning("meaning of a text not found", reason=in_words(error))
        return None
    return Meaning(vector, f"{model.base_url} {model.name} {len(vector)}")
