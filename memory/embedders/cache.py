"""Vectors that were made before, in Redis: the same question again costs no call.

A key is the hash of a text and of what embeds it; a value is JSON: the vector as halves, in base64. (Compressing it would gain
nothing: a vector's bits look random.) Redis is asked once for all texts of a call, in a thread of its own. It never gets in
the way: what is slow, away or no vector is a miss, and after a failure nothing is asked of it for a few seconds.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import math
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from django.core.cache import caches

from memory.embedders.configured import EmbeddingModel
from observability.api import count_lookups
from observability.logs import in_words

log = structlog.get_logger(__name__)

ALIAS: Final = "embeddings"
DEADLINE_S: Final = 0.03
"""How long one text may wait for Redis: recall has 150 ms for everything."""
_DEADLINE_A_TEXT_S: Final = 0.002
PAUSE_S: Final = 5.0
"""How long Redis is left alone after it failed."""
_FORGET_S: Final = 5.0
_KEYS_AT_ONCE: Final = 1000
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="embedding-cache")

Vector = list[float]
T = TypeVar("T")

counts: Counter[str] = Counter()
"""What this process asked for since it started: `hits`, `misses`, and `failures` of Redis."""
_paused_until = 0.0


async def fetch(texts: Sequence[str], *, model: EmbeddingModel) -> dict[str, Vector]:
    """Return the vectors of those `texts` that have one here."""
    keys = {key_of(text, model): text for text in texts}
    values = await _ask(partial(_cache().get_many, list(keys)), deadline_s=DEADLINE_S + _DEADLINE_A_TEXT_S * len(keys))
    vectors = {keys[key]: _vector(value, model) for key, value in (values or {}).items()}
    found = {text: vector for text, vector in vectors.items() if vector is not None}
    counts["hits"] += len(found)
    counts["misses"] += len(keys) - len(found)
    count_lookups("embedding", hits=len(found), misses=len(keys) - len(found))
    return found


def keep(vectors: Mapping[str, Vector], *, model: EmbeddingModel, seconds: int) -> None:
    """Keep the vector of each text for a while. Nobody waits for it."""
    if _is_paused():
        return
    values = {key_of(text, model): _value(vector) for text, vector in vectors.items()}
    _threads.submit(_guarded, partial(_cache().set_many, values, timeout=seconds))


async def forget_texts(texts: Sequence[str], *, models: Sequence[EmbeddingModel]) -> int:
    """Delete what is kept of `texts` and return how many vectors that were.

    Raises:
        Exception: Redis did not confirm; some may still be there.
    """
    keys = [key_of(text, model) for model in dict.fromkeys(models) for text in dict.fromkeys(texts)]
    async with asyncio.timeout(_FORGET_S):
        return await asyncio.get_running_loop().run_in_executor(_threads, _delete, keys)


def key_of(text: str, model: EmbeddingModel) -> str:
    """Return where the vector of `text` is kept."""
    parts = (model.base_url, model.name, str(model.dimensions or ""), text)
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


def _cache() -> Any:
    return caches[ALIAS]


async def _ask(question: Callable[[], T], *, deadline_s: float) -> T | None:
    """Return what Redis answers; None where it does not in time, or is left alone."""
    if _is_paused():
        return None
    try:
        async with asyncio.timeout(deadline_s):
            return await asyncio.get_running_loop().run_in_executor(_threads, _guarded, question)
    except TimeoutError:
        _pause(f"no answer within {deadline_s * 1000:.0f} ms")
        return None


def _guarded(question: Callable[[], T]) -> T | None:
    if _is_paused():  # while this waited for its thread
        return None
    try:
        return question()
    except Exception as error:  # of the network, of Redis, or of a value that is no JSON
        _pause(in_words(error))
        return None


def _is_paused() -> bool:
    return time.monotonic() < _paused_until


def _pause(reason: str) -> None:
    global _paused_until
    _paused_until = time.monotonic() + PAUSE_S
    counts["failures"] += 1
    log.warning("embedding cache left alone for a while", reason=reason, seconds=PAUSE_S)


def _delete(keys: Sequence[str]) -> int:
    return sum(_cache().delete_many(keys[start : start + _KEYS_AT_ONCE]) for start in range(0, len(keys), _KEYS_AT_ONCE))


def _value(vector: Vector) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}e", *vector)).decode()


def _vector(value: Any, model: EmbeddingModel) -> Vector | None:
    """Return the vector that `value` holds; None where it is none that `model` could have made."""
    try:
        packed = base64.b64decode(value, validate=True)
        vector = list(struct.unpack(f"<{len(packed) // 2}e", packed))
    except (TypeError, ValueError, binascii.Error, struct.error):
        return None
    is_one_long = math.isclose(math.hypot(*vector), 1, abs_tol=0.01)  # never so for what is infinite or no number
    return vector if is_one_long and model.dimensions in (None, len(vector)) else None
