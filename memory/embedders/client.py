"""Embeddings over the OpenAI wire: the one client, for the built-in embedder and for any vendor."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import httpx2
import openai
from django.conf import settings

from memory.embedders import cache
from memory.embedders.cache import Vector
from memory.embedders.configured import MAX_DIMENSIONS, EmbeddingModel, embedding_model
from memory.embedders.costs import metered, note_usage
from memory.embedders.failures import EmbeddingFailed
from observability.outbound import new_client

__all__ = ["EmbeddingFailed", "EmbeddingModel", "Vector", "embed", "embedding_model"]

RETRY_CACHE_S: Final = 3600
"""How long vectors that are about to be stored are kept in the cache, too: should storing them fail, they are not made again."""
_TEXTS_A_REQUEST: Final = 256
_CONNECT_S: Final = 2.0
# The answers of a vendor that will not change when asked again.
_FINAL_STATUSES: Final = frozenset({400, 413, 422})


async def embed(texts: Sequence[str], *, model: EmbeddingModel, timeout_s: float = 60.0, cache_s: int | None = None) -> list[Vector]:
    """Return a vector of length 1 for each of `texts`, in order; what is in the cache, or twice among them, is asked for once.

    Args:
        cache_s: how long new ones are cached, at most EMBEDDING_CACHE_S; None: as long as that.

    Raises:
        EmbeddingFailed: they could not be had within `timeout_s`, or (EmbeddingRefused) a budget leaves no room for it.
    """
    longest_s: int = settings.EMBEDDING_CACHE_S
    cache_s = longest_s if cache_s is None else min(cache_s, longest_s)
    try:
        async with asyncio.timeout(timeout_s):
            vectors = await cache.fetch(texts, model=model) if cache_s else {}
            vectors |= await _make([text for text in dict.fromkeys(texts) if text not in vectors], model=model, cache_s=cache_s)
            if len({len(vector) for vector in vectors.values()}) > 1:  # the server has another model by now, of the same name
                vectors = await _make(list(dict.fromkeys(texts)), model=model, cache_s=cache_s)
            return [vectors[text] for text in texts]
    except TimeoutError:
        raise EmbeddingFailed(f"no answer within {timeout_s:g} s") from None


async def _make(texts: Sequence[str], *, model: EmbeddingModel, cache_s: int) -> dict[str, Vector]:
    vectors: dict[str, Vector] = {}
    for start in range(0, len(texts), _TEXTS_A_REQUEST):
        asked = texts[start : start + _TEXTS_A_REQUEST]
        async with metered(asked, model=model):
            new = dict(zip(asked, await _request(asked, model), strict=True))
            if cache_s:
                cache.keep(new, model=model, seconds=cache_s)
        vectors |= new
    return vectors


async def _request(texts: Sequence[str], model: EmbeddingModel) -> list[Vector]:
    dimensions = openai.omit if model.dimensions is None or model.is_builtin else model.dimensions
    try:
        answer = await _client(model).embeddings.create(model=model.name, input=list(texts), dimensions=dimensions)
        note_usage(getattr(getattr(answer, "usage", None), "prompt_tokens", None))
        by_index = {item.index: item.embedding for item in answer.data}
        vectors = [by_index[index] for index in range(len(texts))]
        return [_checked(vector, model) for vector in vectors]
    except openai.APIStatusError as error:
        is_final = error.status_code in _FINAL_STATUSES
        raise EmbeddingFailed(f"HTTP {error.status_code}: {str(error.message)[:300]}", is_final=is_final) from error
    except openai.APIError as error:
        raise EmbeddingFailed(f"no connection: {error.__cause__ or error}") from error
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # the SDK takes the answer's shape on trust
        raise EmbeddingFailed(f"the answer does not hold {len(texts)} vectors: {error!r}") from error


def _checked(vector: Sequence[float], model: EmbeddingModel) -> Vector:
    """Return `vector` at length 1, so that an inner product is a cosine."""
    if model.dimensions is not None and len(vector) != model.dimensions:
        raise EmbeddingFailed(f"{model.name} gave {len(vector)} dimensions instead of {model.dimensions}; correct EMBEDDING_DIMENSIONS")
    if len(vector) > MAX_DIMENSIONS:
        raise EmbeddingFailed(
            f"{model.name} gave {len(vector)} dimensions, and at most {MAX_DIMENSIONS} can be kept; "
            "set EMBEDDING_DIMENSIONS, or use another model"
        )
    length = math.hypot(*vector)
    if not 0 < length < math.inf:
        raise EmbeddingFailed(f"{model.name} gave a vector without a direction")
    return [value / length for value in vector]


@lru_cache(maxsize=8)
def _client(model: EmbeddingModel) -> openai.AsyncOpenAI:
    omitted: Any = openai.Omit()
    return openai.AsyncOpenAI(
        base_url=model.base_url,
        api_key=model.api_key or "no-key-needed",
        http_client=_shared_client(),
        max_retries=0,
        timeout=httpx2.Timeout(None, connect=_CONNECT_S),
        # The SDK would send the organization and project in this process's environment to every vendor.
        default_headers={"Accept-Encoding": "identity", "OpenAI-Organization": omitted, "OpenAI-Project": omitted},
    )


@lru_cache(maxsize=1)
def _shared_client() -> httpx2.AsyncClient:
    return new_client()
