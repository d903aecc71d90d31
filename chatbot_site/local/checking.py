"""`make check`: everything that is checked without running the tests."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator

from .processes import Interrupts
from .supervisor import say
from .testing import foreground, throw_away_services

PACKAGES = ("chatbot_site", "agents", "memory", "observability", "benchmarks")


def check(interrupts: Interrupts) -> int:
    """Run every check, also after one has failed; return 1 if any has."""
    failed = []
    with throw_away_services(interrupts) as env:
        for title, command, more in _checks():
            say(f"--- {title}")
            if foreground(command, env=env | more, interrupts=interrupts):
                failed.append(title)
    say(f"Failed: {', '.join(failed)}." if failed else "All checks passed.")
    return 1 if failed else 0


def _checks() -> Iterator[tuple[str, list[str], dict[str, str]]]:
    python, manage = [sys.executable, "-m"], [sys.executable, "manage.py"]
    production = {
        "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.prod",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ALLOWED_HOSTS": "bots.example.com",
    }
    yield "style", [*python, "ruff", "check", "."], {}
    yield "format", [*python, "ruff", "format", "--check", "."], {}
    yield "types", [*python, "mypy", *PACKAGES], {}
    # import-linter has no module to run with -m.
    yield "layers", [os.path.join(os.path.dirname(sys.executable), "lint-imports")], {}
    yield "migrations", [*manage, "makemigrations", "--check", "--dry-run"], {}
    yield "API schema", [*manage, "spectacular", "--validate", "--fail-on-warn", "--file", os.devnull], {}
    yield "deployment", [*manage, "check", "--deploy", "--fail-level", "WARNING"], production
    yield "documentation", [*python, "pytest", "-q", "tests/docs", "tests/chatbot_site/settings"], {}
