"""Exceptions in words that may leave this process: their kind and where they came from, without what people wrote.

A message of an exception often repeats the value that it is about: a name, a number, half a conversation. So it is shown only for
kinds whose messages tell of code, addresses and tables; for all others the line of code that raised it has to do.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable
from typing import Final

from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, InterfaceError, OperationalError, ProgrammingError

_MOST_CHARS: Final = 300
_STRETCH_CHARS: Final = 12
_SHORTEST_TEXT_CHARS: Final = 4
_OUR_PACKAGES: Final = frozenset({"agents", "chatbot_site", "memory", "observability"})
_TELLING: Final = (ArithmeticError, AssertionError, AttributeError, ImportError, NameError, OSError, RuntimeError, TypeError)
# PostgreSQL's first line says what is wrong; the rows and statements follow.
_TELLING_OF_TABLES: Final = (ImproperlyConfigured, IntegrityError, InterfaceError, OperationalError, ProgrammingError)


def kind_of(error: BaseException) -> str:
    """Return the name of the error's class, such as `ValueError` or `agents.providers.base.UpstreamFailed`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """Return the first line of the error's message where it tells of this program, and "" where it may repeat what people wrote."""
    is_ours = type(error).__module__.partition(".")[0] in _OUR_PACKAGES  # whose messages say what we mean them to
    if not (is_ours or isinstance(error, _TELLING + _TELLING_OF_TABLES)):
        return ""
    lines = str(error).splitlines()
    return lines[0][:_MOST_CHARS] if lines else ""


def without(said: str, texts: Iterable[str]) -> str:
    """Return what a vendor `said` of a refused request without what it repeats of the request's own `texts`.

    Left out is whatever stands in one of them: a whole one, and any stretch of a dozen characters, as it is or as JSON has it.
    """
    texts = [text for text in texts if text]
    for text in sorted(texts, key=len, reverse=True):
        if len(text) >= _SHORTEST_TEXT_CHARS:
            said = said.replace(text, "…")
    asked = "\n".join(
        [*texts, *(json.dumps(text)[1:-1] for text in texts), *(json.dumps(text, ensure_ascii=False)[1:-1] for text in texts)]
    )
    told: list[str] = []
    place = 0
    while place < len(said):
        end = place + _STRETCH_CHARS
        if end > len(said) or said[place:end] not in asked:
            told.append(said[place])
            place += 1
            continue
        while end < len(said) and said[place : end + 1] in asked:
            end += 1
        told.append("…")
        place = end
    return "".join(told)


def in_words(error: BaseException) -> str:
    """Return the error's kind, and its message where it tells of this program."""
    message = message_of(error)
    return f"{kind_of(error)}: {message}" if message else kind_of(error)


def trace_of(error: BaseException) -> str:
    """Return the traceback of `error` and of what led to it, oldest first, with lines of code and no values."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = f"{trace_of(cause)}\n\nThat led to:\n\n" if cause is not None and cause is not error else ""
    own = "".join(traceback.format_tb(error.__traceback__)) + in_words(error)
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return before + own + "".join(f"\n\nOf which one is:\n\n{trace_of(part)}" for part in parts)
