"""Logs: what they must never say, however something failed, what every line of a request carries, and their level at run time."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from django.db import DataError, OperationalError

from observability.errors import NotFound
from observability.logs import begin_facts, logging_settings, note, set_level, without

CANARY = "sk-canary-91c2aa"
PROJECT = Path(__file__).parents[2]


class _StandardOutput:
    """Whatever is standard output at the moment: pytest changes it between a fixture and its test."""

    def write(self, text: str) -> None:
        sys.stdout.write(text)


@pytest.fixture(autouse=True)
def _production() -> Iterator[None]:
    before = structlog.get_config()
    configured = logging_settings(level="INFO", json=True)
    configured["handlers"]["stdout"]["stream"] = _StandardOutput()
    logging.config.dictConfig(configured)
    yield
    structlog.configure(**before)
    set_level("INFO")
    begin_facts()


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


@pytest.mark.parametrize("json", [True, False], ids=["production", "development"])
def test_a_traceback_shows_no_local_variables(json: bool, capfd: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(logging_settings(level="INFO", json=json))
    try:
        _fail(CANARY)
    except ZeroDivisionError as error:
        structlog.get_logger("test").error("request failed", exc_info=error)
    written = capfd.readouterr().out
    assert "ZeroDivisionError" in written
    assert "in _fail" in written
    assert CANARY not in written


def _fail(key: str) -> None:
    1 / (len(key) - len(key))


@pytest.mark.parametrize(
    "error",
    [
        ValueError(CANARY),
        KeyError(CANARY),
        UnicodeEncodeError("ascii", CANARY, 0, 1, CANARY),
        DataError(f'invalid input syntax for type integer: "{CANARY}"'),
        OperationalError(f"the server closed the connection\nDETAIL: Key (name)=({CANARY})"),
        ExceptionGroup("several", [ValueError(CANARY), TimeoutError("too slow")]),
        LookupError(CANARY),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("writer", ["structlog", "logging"])
def test_a_message_that_repeats_what_people_wrote_is_left_out(error: Exception, writer: str, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError("could not go on") from error
    except RuntimeError:
        log: Any = structlog.get_logger("test") if writer == "structlog" else logging.getLogger("some.library")
        log.exception("it broke")
    [line] = lines(capfd)
    assert line["exception_type"] == "RuntimeError"
    assert "could not go on" in line["exception"]
    assert type(error).__name__ in line["exception"]
    assert CANARY not in json.dumps(line)


def test_libraries_do_not_repeat_it_either(capfd: pytest.CaptureFixture[str]) -> None:
    async def forget() -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "Task exception was never retrieved", "future": ValueError(CANARY)})

    asyncio.run(forget())
    logging.getLogger("django.request").error("%s: %s", "Internal Server Error", f"/api/users/{CANARY}/export")
    assert [line["event"] for line in lines(capfd)] == ["Task exception was never retrieved", "Internal Server Error"]


@pytest.mark.parametrize("error", [OSError(111, "Connection refused"), TypeError("too few arguments"), NotFound("No such agent.")])
def test_a_message_about_this_program_is_shown(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger("test").error("it broke", exc_info=error)
    [line] = lines(capfd)
    assert line["exception"].endswith(str(error))


def test_every_line_of_a_request_carries_what_is_known_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    begin_facts(request_id="r-1")
    structlog.get_logger("test").info("first")
    note(agent="support")
    structlog.get_logger("test").info("second", agent="other")
    logging.getLogger("some.library").warning("third")
    begin_facts(request_id="r-2")
    structlog.get_logger("test").info("fourth")
    first, second, third, fourth = lines(capfd)
    assert (first["request_id"], first.get("agent")) == ("r-1", None)
    assert (second["request_id"], second["agent"]) == ("r-1", "other")
    assert (third["request_id"], third["agent"], third["level"]) == ("r-1", "support", "warning")
    assert (fourth["request_id"], fourth.get("agent")) == ("r-2", None)


def test_the_level_changes_for_loggers_that_are_in_use(capfd: pytest.CaptureFixture[str]) -> None:
    log, library = structlog.get_logger("test"), logging.getLogger("some.library")
    bound = log.bind(part="bound")
    for level, written in (("ERROR", []), ("DEBUG", ["own", "bound", "library"]), ("INFO", [])):
        set_level(level)
        log.debug("own")
        bound.debug("bound")
        library.debug("library")
        assert [line["event"] for line in lines(capfd)] == written
    set_level("WARNING")
    log.info("unheard of")
    log.warning("heard of")
    assert [line["event"] for line in lines(capfd)] == ["heard of"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('HTTP 400: {"error": "max_tokens is too large: 4096"}', 'HTTP 400: {"error": "max_tokens is too large: 4096"}'),
        (f'HTTP 422: input "My secret is {CANARY}, keep it" is odd', 'HTTP 422: input "…" is odd'),
        (f"HTTP 422: {CANARY[:14]}… is odd", "HTTP 422:…… is odd"),
        ('HTTP 422: {"input": "line one\\nline \\"two\\""}', 'HTTP 422: {"input": "…"}'),
        ("HTTP 422: 1234 is odd", "HTTP 422: … is odd"),
    ],
)
def test_what_a_vendor_repeats_of_a_request_is_left_out(said: str, told: str) -> None:
    assert without(said, [f"My secret is {CANARY}, keep it", 'line one\nline "two"', "1234", ""]) == told


@pytest.mark.parametrize("library", ["httpcore2.http11", "httpx2", "openai._base_client"])
def test_no_level_makes_libraries_tell_what_goes_over_the_network(library, capsys):
    set_level("DEBUG")
    logging.getLogger(library).debug("%s", CANARY)
    logging.getLogger(library).info("%s", CANARY)
    assert CANARY not in capsys.readouterr().out


def syntax_of(file):
    """Return a module's syntax tree. Python before 3.11.5 may count its depth wrongly where the collector runs in between (gh-106905)."""
    gc.disable()
    try:
        return ast.parse(file.read_text())
    finally:
        gc.enable()


def test_no_line_of_ours_repeats_what_an_exception_says():
    """PostgreSQL repeats the row that it refuses, and vendors what they were asked: `in_words` knows which words may be shown."""
    repeating = [
        f"{file.relative_to(PROJECT)}:{call.lineno}"
        for package in ("agents", "chatbot_site", "memory", "observability")
        for file in (PROJECT / package).rglob("*.py")
        for call in ast.walk(syntax_of(file))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "log"
        for word in call.keywords
        if any(said in ast.unparse(word.value) for said in ("{error}", "str(error)"))
    ]
    # Of the sockets that these two open, there is nothing else to say.
    assert [place.partition(":")[0] for place in sorted(repeating)] == ["observability/redis.py", "observability/worker_metrics.py"]
