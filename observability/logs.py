"""Logs: one JSON object a line in production, coloured lines in development; never a message's text, a key or a local variable.

Our own lines go straight to standard output. Lines of libraries that use the standard `logging` come out in the same shape,
through a formatter that costs several times as much; there are few of them. docs/logs.md lists the fields.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import Processor

from observability.tracebacks import in_words, kind_of, trace_of, without

__all__ = ["LEVELS", "begin_facts", "in_words", "logging_settings", "note", "report_exceptions_to", "set_level", "without"]

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

# What begins that part, by logger: a task with its exception's message, and a path.
_REPEATING: Final = {"asyncio": "\n", "django.request": ":"}

Event = MutableMapping[str, Any]
Reporter = Callable[[BaseException, Mapping[str, Any]], None]

_facts: ContextVar[dict[str, Any] | None] = ContextVar("facts", default=None)
_reporters: list[Reporter] = []
_encode = msgspec.json.Encoder(enc_hook=str).encode


def begin_facts(**facts: Any) -> None:
    """Begin a piece of work, such as a request: all lines written in it, and in what it starts, carry `facts`."""
    _facts.set(facts)


def note(**facts: Any) -> None:
    """Let the lines that follow in this piece of work carry `facts` too; nothing happens outside of one."""
    known = _facts.get()
    if known is not None:
        known.update(facts)


def report_exceptions_to(reporter: Reporter) -> None:
    """Hand `reporter` every exception that a line tells of, with the line's fields."""
    _reporters.append(reporter)


def set_level(level: str) -> None:
    """Write lines of `level` and above from now on, in this process.

    Loggers are kept by whoever uses them, so their class changes rather than they: a line below the level costs one empty call.
    """
    number = logging.getLevelNamesMapping()[level]
    for name, method in vars(structlog.make_filtering_bound_logger(number)).items():
        if not name.startswith("__"):
            setattr(_Logger, name, method)
    logging.getLogger().setLevel(number)


class _Logger(structlog.make_filtering_bound_logger(logging.INFO)):  # type: ignore[misc] # the class is made at run time
    """The class of all loggers. Its methods are those of the level that is set."""


def logging_settings(*, level: str, json: bool) -> dict[str, Any]:
    """Return Django's LOGGING and configure structlog to match: standard output only, lines of `level` and above."""
    set_level(level)
    renderer: Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json) if json else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[*_SHARED, _tell_exception, renderer],
        logger_factory=_standard_output,
        wrapper_class=_Logger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*_SHARED, structlog.stdlib.add_logger_name, _cut_what_may_repeat],
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _tell_exception, renderer],
            }
        },
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "structured"}},
        "root": {"handlers": ["stdout"], "level": level},
        "loggers": {
            # Django would log each 404 as a warning of its own; the access line has it already.
            "django.request": {"level": "ERROR"},
            "django.server": {"level": "ERROR"},
            # At lower levels these tell of addresses, headers and messages.
            "httpcore2": {"level": "WARNING"},
            "httpx2": {"level": "WARNING"},
            "openai": {"level": "WARNING"},
            "psycopg.pool": {"level": "ERROR"},
        },
    }


def _add_facts(_: object, __: str, event: Event) -> Event:
    facts = _facts.get()
    if facts:
        for name, value in facts.items():
            event.setdefault(name, value)
    return event


def _cut_what_may_repeat(_: object, __: str, event: Event) -> Event:
    """Leave out the part of a library's line that may repeat what people wrote, or their names."""
    if mark := _REPEATING.get(event.get("logger", "")):
        event["event"] = str(event["event"]).partition(mark)[0]
    return event


def _tell_exception(_: object, __: str, event: Event) -> Event:
    """Put an exception's type and traceback in place of `exc_info`."""
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        for report in _reporters:
            report(error, event)
        event["exception_type"] = kind_of(error)
        event["exception"] = trace_of(error)
    return event


_SHARED: Final[list[Processor]] = [
    _add_facts,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _standard_output(*_: object) -> structlog.WriteLogger:
    return structlog.WriteLogger(sys.stdout)


def _to_json(event: dict[str, Any], **_: object) -> str:
    return _encode(event).decode()
