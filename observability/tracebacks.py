"""Exceptions in words that may leave this process: their kind and where they came from, without what people wrote.

A message of an exception often repeats the value that it is about: a name, a number, half a conversation. So it is shown only for
kinds whose messages tell of code, addresses and tables; for all others the line of code that raised it has to do.
"""

from __future__ import annotations

import traceback
from typing import Final

from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, InterfaceError, OperationalError, ProgrammingError

from observability.errors import ChatbotError

_MOST_CHARS: Final = 300
_TELLING: Final = (ArithmeticError, AssertionError, AttributeError, ImportError, NameError, OSError, RuntimeError, TypeError)
# PostgreSQL's first line says what is wrong; the rows and statements follow.
_TELLING_OF_TABLES: Final = (ImproperlyConfigured, IntegrityError, InterfaceError, OperationalError, ProgrammingError)


def kind_of(error: BaseException) -> str:
    """Return the name of the error's class, such as `ValueError` or `agents.providers.base.UpstreamFailed`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """Return the first line of the error's message where it tells of this program, and "" where it may repeat what people wrote."""
    if not isinstance(error, (ChatbotError, *_TELLING, *_TELLING_OF_TABLES)):
        return ""
    lines = str(error).splitlines()
    return lines[0][:_MOST_CHARS] if lines else ""


def trace_of(error: BaseException) -> str:
    """Return the traceback of `error` and of what led to it, oldest first, with lines of code and no values."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = f"{trace_of(cause)}\n\nThat led to:\n\n" if cause is not None and cause is not error else ""
    message = message_of(error)
    own = "".join(traceback.format_tb(error.__traceback__)) + kind_of(error) + (f": {message}" if message else "")
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return before + own + "".join(f"\n\nOf which one is:\n\n{trace_of(part)}" for part in parts)
