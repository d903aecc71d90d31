"""Logs: one JSON object a line in production, coloured lines in development; never a message's text.

Our own lines go straight to standard output. Lines of libraries that use the standard `logging` come out in the same shape,
through a formatter that costs several times as much; there are few of them.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
import structlog
from structlog.typing import Processor

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
_encode = msgspec.json.Encoder(enc_hook=str).encode


def logging_settings(*, level: str, json: bool) -> dict[str, Any]:
    """Return Django's LOGGING and configure structlog to match: standard output only, lines of `level` and above."""
    renderers: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]
        if json
        # Its own way of showing exceptions prints local variables too: messages, keys, passwords.
        else [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*_SHARED, *renderers],
        logger_factory=_standard_output,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*_SHARED, structlog.stdlib.add_logger_name],
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
            }
        },
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "structured"}},
        "root": {"handlers": ["stdout"], "level": level},
        "loggers": {
            # Django would log each 404 as a warning of its own; the access line has it already.
            "django.request": {"level": "ERROR"},
            "django.server": {"level": "ERROR"},
            "httpx2": {"level": "WARNING"},
            "openai": {"level": "WARNING"},
            "psycopg.pool": {"level": "ERROR"},
        },
    }


def _standard_output(*_: object) -> structlog.WriteLogger:
    return structlog.WriteLogger(sys.stdout)


def _to_json(event: dict[str, Any], **_: object) -> str:
    return _encode(event).decode()
