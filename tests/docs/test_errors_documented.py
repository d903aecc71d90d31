"""Every error code and system check stands in docs/errors.md, with its status, and nothing else does."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import agents
import chatbot_site.problems
import memory
import observability
from observability.errors import ChatbotError

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "errors.md").read_text()


def _all_errors() -> set[type[ChatbotError]]:
    for package in (agents, memory, observability):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".management" not in module.name:
                importlib.import_module(module.name)
    assert chatbot_site.problems
    found, open_ = set(), [ChatbotError]
    while open_:
        kind = open_.pop()
        found.add(kind)
        open_.extend(kind.__subclasses__())
    return found


def test_every_error_code_is_documented_with_its_status():
    documented = set(re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", PAGE, re.MULTILINE))
    assert documented == {(kind.code, str(kind.status)) for kind in _all_errors()}


def test_every_error_says_what_to_do():
    for kind in _all_errors():
        assert kind.title, kind
        assert kind.remedy.endswith("."), kind


def test_every_system_check_is_documented():
    documented = set(re.findall(r"`(agents\.[EWI]\d{3})`", PAGE))
    in_code = set(re.findall(r"agents\.[EWI]\d{3}", (PROJECT / "agents" / "checks.py").read_text()))
    assert documented == in_code
