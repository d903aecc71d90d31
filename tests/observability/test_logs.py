"""Logs: what they must never say, however something failed."""

from __future__ import annotations

import logging.config

import pytest
import structlog

from observability.logs import logging_settings

CANARY = "sk-canary-91c2aa"


@pytest.mark.parametrize("json", [True, False], ids=["production", "development"])
def test_a_traceback_shows_no_local_variables(json: bool, capfd: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(logging_settings(level="INFO", json=json))
    try:
        _fail(CANARY)
    except ZeroDivisionError as error:
        structlog.get_logger("test").error("request failed", exc_info=error)
    written = capfd.readouterr().out
    assert "ZeroDivisionError" in written
    assert CANARY not in written


def _fail(key: str) -> None:
    1 / (len(key) - len(key))
