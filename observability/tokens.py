"""Token counts, as OpenAI's tokenizers make them (tiktoken). Models of other vendors are counted with o200k_base."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final

import tiktoken
from django.conf import settings

_DEFAULT_ENCODING: Final = "o200k_base"
_SHIPPED_ENCODINGS: Final = {"o200k_base", "cl100k_base"}


def count_tokens(text: str, *, model: str) -> int:
    """Return how many tokens `text` is for `model`. Special tokens in people's text count as plain text."""
    return len(_encoding_for(model).encode_ordinary(text))


@lru_cache(maxsize=512)
def count_tokens_of_prompt(text: str, *, model: str) -> int:
    """The same for texts that are counted again and again: system prompts."""
    return count_tokens(text, model=model)


def most_tokens(text: str) -> int:
    """Return an upper bound without tokenizing: every token stands for at least one byte of UTF-8."""
    return len(text.encode())


@lru_cache(maxsize=256)
def _encoding_for(model: str) -> tiktoken.Encoding:
    try:
        name = tiktoken.encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        name = _DEFAULT_ENCODING
    return _encoding(name if name in _SHIPPED_ENCODINGS else _DEFAULT_ENCODING)


@lru_cache(maxsize=4)
def _encoding(name: str) -> tiktoken.Encoding:
    os.environ["TIKTOKEN_CACHE_DIR"] = str(settings.TIKTOKEN_CACHE_DIR)
    return tiktoken.get_encoding(name)
