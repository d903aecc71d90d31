"""Embeddings over the OpenAI wire: the one client, for the built-in embedder and for any vendor.

Which one is decided by the settings, in this order: EMBEDDING_BASE_URL; OpenAI, where OPENAI_API_KEY is set and no other
address for it; the built-in embedder at EMBEDDER_URL. Without any of them there is no long-term memory.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import httpx2
import openai
from django.conf import settings

from memory.embedders import builtin
from observability.outbound import new_client

OPENAI_URL: Final = "https://api.openai.com/v1"
DEFAULT_MODEL: Final = "text-embedding-3-small"
DEFAULT_DIMENSIONS: Final = 512
# An index row holds no more (halfvec, 2,704 bytes a row).
MAX_DIMENSIONS: Final = 1300
_TEXTS_A_REQUEST: Final = 256
_CONNECT_S: Final = 2.0
# The answers of a vendor that will not change when asked again.
_FINAL_STATUSES: Final = frozenset({400, 413, 422})

Vector = list[float]


class EmbeddingFailed(Exception):
    """No vectors came.

    Attributes:
        is_final: these texts will never be embedded; anything else may pass.
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """Where texts are embedded, and by what. `dimensions` None: as many as the model has."""

    base_url: str
    api_key: str
    name: str
    dimensions: int | None
    is_builtin: bool = False


def embedding_model() -> EmbeddingModel | None:
    """Return what the settings say; None: there is nothing to embed with, so memory is off."""
    asked: int | None = settings.EMBEDDING_DIMENSIONS or None
    name: str = settings.EMBEDDING_MODEL or DEFAULT_MODEL
    dimensions = asked or (DEFAULT_DIMENSIONS if name == DEFAULT_MODEL else None)
    if settings.EMBEDDING_BASE_URL:
        return EmbeddingModel(settings.EMBEDDING_BASE_URL, settings.EMBEDDING_API_KEY, name, dimensions)
    if settings.OPENAI_API_KEY and not settings.OPENAI_BASE_URL:
        return EmbeddingModel(OPENAI_URL, settings.EMBEDDING_API_KEY or settings.OPENAI_API_KEY, name, dimensions)
    if settings.EMBEDDER_URL:
        return EmbeddingModel(settings.EMBEDDER_URL, "", builtin.MODEL, builtin.DIMENSIONS, is_builtin=True)
    return None


async def embed(texts: Sequence[str], *, model: EmbeddingModel, timeout_s: float = 60.0) -> list[Vector]:
    """Return a vector of length 1 for each of `texts`, in order.

    Raises:
        EmbeddingFailed: they could not be had within `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            vectors: list[Vector] = []
            for start in range(0, len(texts), _TEXTS_A_REQUEST):
                vectors += await _request(texts[start : start + _TEXTS_A_REQUEST], model)
            return vectors
    except TimeoutError:
        raise EmbeddingFailed(f"no answer within {timeout_s:g} s") from None


async def _request(texts: Sequence[str], model: EmbeddingModel) -> list[Vector]:
    dimensions = openai.omit if model.dimensions is None or model.is_builtin else model.dimensions
    try:
        answer = await _client(model).embeddings.create(model=model.name, input=list(texts), dimensions=dimensions)
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
