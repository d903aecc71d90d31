"""Embeddings over the OpenAI wire: the client for any vendor, and for the built-in embedder wherever nobody waits alone (`line`)."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import httpx2
import msgspec
import openai
from django.conf import settings

from memory.embedders import cache
from memory.embedders.cache import Vector
from memory.embedders.configured import MAX_DIMENSIONS, EmbeddingModel, embedding_model
from memory.embedders.costs import metered, note_usage
from memory.embedders.failures import EmbeddingFailed
from observability.logs import in_words, without
from observability.outbound import GuardedTransport, new_transport

__all__ = ["EmbeddingFailed", "EmbeddingModel", "Vector", "embed", "embedding_model"]

RETRY_CACHE_S: Final = 3600
"""How long vectors that are about to be stored are kept in the cache, too: should storing them fail, they are not made again."""
_TEXTS_A_REQUEST: Final = 256
_CONNECT_S: Final = 2.0
# The answers of a vendor that will not change when asked again.
_FINAL_STATUSES: Final = frozenset({400, 413, 422})
_MOST_REASON_CHARS: Final = 300
_NO_KEY: Final = "no-key-needed"


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
    body = request_for(texts, model=model)
    if model.dimensions is not None and not model.is_builtin:
        body["dimensions"] = model.dimensions
    status, answer = await _post(body, model)
    if status in _FINAL_STATUSES and b"encoding_format" in answer:  # some servers know lists of numbers only
        status, answer = await _post({name: value for name, value in body.items() if name != "encoding_format"}, model)
    return read_vectors(status, answer, texts, model=model)


def read_vectors(status: int, answer: bytes, texts: Sequence[str], *, model: EmbeddingModel) -> list[Vector]:
    """Return the vectors, of length 1, of the answer to a request for those of `texts`.

    Raises:
        EmbeddingFailed: it holds none, or others than were asked for.
    """
    if status != httpx2.codes.OK:
        said = answer.decode(errors="replace").replace(model.api_key or _NO_KEY, "(the key)")[:_MOST_REASON_CHARS]
        raise EmbeddingFailed(f"HTTP {status}: {without(said, texts)}", is_final=status in _FINAL_STATUSES)
    try:
        found = _decode(answer)
        note_usage(found.usage.prompt_tokens if found.usage else None)
        by_index = {item.index: item.embedding for item in found.data}
        vectors = [_numbers(by_index[index]) for index in range(len(texts))]
    except (msgspec.DecodeError, ValueError, LookupError, struct.error) as error:
        raise EmbeddingFailed(f"the answer does not hold {len(texts)} vectors: {in_words(error)}") from error
    return [_checked(vector, model) for vector in vectors]


def request_for(texts: Sequence[str], *, model: EmbeddingModel) -> dict[str, Any]:
    """Return what asks for the vectors of `texts`."""
    return {"model": model.name, "input": list(texts), "encoding_format": "base64"}


async def _post(body: dict[str, Any], model: EmbeddingModel) -> tuple[int, bytes]:
    endpoint = _endpoint(model)
    message = httpx2.Request("POST", endpoint.url, headers=endpoint.headers, content=_encode(body), extensions=endpoint.extensions)
    try:
        response = await _transport().handle_async_request(message)
        try:
            return response.status_code, await response.aread()
        finally:
            await response.aclose()
    except httpx2.HTTPError as error:
        raise EmbeddingFailed(f"no connection: {error}") from error


def _numbers(embedding: str | list[float]) -> Sequence[float]:
    """Return the numbers of a vector that came as a list, or as float32 (little-endian) in base64."""
    if not isinstance(embedding, str):
        return embedding
    packed = base64.b64decode(embedding, validate=True)
    return struct.unpack(f"<{len(packed) // 4}f", packed)


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


class _Item(msgspec.Struct):
    index: int
    embedding: str | list[float]


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None


class _Answer(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Answer).decode


class _Endpoint(NamedTuple):
    """Where a model's embeddings are asked for, and with what."""

    url: httpx2.URL
    headers: httpx2.Headers
    extensions: dict[str, Any]


@lru_cache(maxsize=8)
def _endpoint(model: EmbeddingModel) -> _Endpoint:
    """Ask the openai SDK, once, what it would send; sending it ourselves is quicker (docs/adr/0008-a-faster-wire.md)."""
    sdk = openai.AsyncOpenAI(base_url=model.base_url, api_key=model.api_key or _NO_KEY)
    known = {**sdk.default_headers, **sdk.auth_headers, "Accept-Encoding": "identity"}
    # The SDK would send the organization and project in this process's environment to every vendor.
    headers = {name: str(value) for name, value in known.items() if name not in ("OpenAI-Organization", "OpenAI-Project")}
    timeout = httpx2.Timeout(None, connect=_CONNECT_S).as_dict()
    return _Endpoint(sdk.base_url.join("embeddings"), httpx2.Headers(headers), {"timeout": timeout})


@lru_cache(maxsize=1)
def _transport() -> GuardedTransport:
    return new_transport()
