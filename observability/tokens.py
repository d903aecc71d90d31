"""Token counts, as OpenAI's tokenizers make them (tiktoken), and how chat messages are framed.

Which encoding a model has is tiktoken's table, by the model's name: cl100k_base for GPT-4, GPT-3.5 and the embedding models,
o200k_base for those since. What has no name there, or an encoding that is not shipped, is counted with o200k_base: how far off
that is for other vendors' models is learned from the usage that they report (`observability.calibration`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import tiktoken
from django.conf import settings

_DEFAULT_ENCODING: Final = "o200k_base"
_SHIPPED_ENCODINGS: Final = {"o200k_base", "cl100k_base"}
# https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken, which compares its counts with those of the API
TOKENS_PER_MESSAGE: Final = 4
"""What a message has beside its content: three that frame it, and its role."""
TOKENS_PER_NAME: Final = 1
"""What a message that carries a name has beside that name."""
TOKENS_TO_BEGIN_THE_REPLY: Final = 3


def count_tokens(text: str, *, model: str) -> int:
    """Return how many tokens `text` is for `model`. Special tokens in people's text count as plain text."""
    return len(_encoding_for(model).encode_ordinary(text))


@lru_cache(maxsize=512)
def count_tokens_of_prompt(text: str, *, model: str) -> int:
    """The same for texts that are counted again and again: system prompts."""
    return count_tokens(text, model=model)


def count_tokens_of_messages(messages: Iterable[Mapping[str, object]], *, model: str) -> int:
    """Return how many prompt tokens a call of `model` with `messages` has, their framing included."""
    return TOKENS_TO_BEGIN_THE_REPLY + sum(_tokens_of_message(message, model) for message in messages)


def _tokens_of_message(message: Mapping[str, object], model: str) -> int:
    tokens = TOKENS_PER_MESSAGE + count_tokens(str(message["content"]), model=model)
    if name := message.get("name"):
        tokens += TOKENS_PER_NAME + count_tokens(str(name), model=model)
    return tokens


def is_counted_exactly(model: str) -> bool:
    """Tell whether `model` is one whose encoding OpenAI publishes and this project ships."""
    return _encoding_name(model) in _SHIPPED_ENCODINGS


def most_tokens(text: str) -> int:
    """Return an upper bound without tokenizing: every token stands for at least one byte of UTF-8."""
    return len(text.encode())


@lru_cache(maxsize=256)
def _encoding_for(model: str) -> tiktoken.Encoding:
    name = _encoding_name(model)
    return _encoding(name if name in _SHIPPED_ENCODINGS else _DEFAULT_ENCODING)


@lru_cache(maxsize=256)
def _encoding_name(model: str) -> str:
    """Return which encoding tiktoken says that `model` has; "" where it knows none."""
    try:
        return tiktoken.encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return ""


@lru_cache(maxsize=4)
def _encoding(name: str) -> tiktoken.Encoding:
    os.environ["TIKTOKEN_CACHE_DIR"] = str(settings.TIKTOKEN_CACHE_DIR)
    return tiktoken.get_encoding(name)
