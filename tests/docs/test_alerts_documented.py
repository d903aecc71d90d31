"""Every alert stands in docs/alerts.md with its default, and has a runbook that links back."""

from __future__ import annotations

import re

import pytest

from observability.alerts.kinds import KINDS, runbook_of
from observability.alerts.outage import DOWN_AFTER
from observability.models import AlertKind
from tests.live_server import PROJECT_DIR

PAGE = (PROJECT_DIR / "docs" / "alerts.md").read_text()
ROWS = {name: words for words, name in re.findall(r"^\| (.*) \| \[(\w+)\]\(runbooks/\2\.md\) \|$", PAGE, re.MULTILINE)}
NUMBERS = {"one": 1, "three": 3, "five": 5}


@pytest.mark.parametrize("kind", list(AlertKind))
def test_each_kind_has_its_row_with_its_defaults(kind):
    words = ROWS[kind]
    defaults = KINDS[kind]
    numbers = {float(number) for number in re.findall(r"\d+", words)} | {float(NUMBERS[word]) for word in words.split() if word in NUMBERS}
    if kind is not AlertKind.BREAKER_OPEN:
        assert defaults.threshold in numbers
    if 60 <= defaults.window_s < 3600 and kind is not AlertKind.BREAKER_OPEN:
        assert defaults.window_s / 60 in numbers
    assert ("critical" in words) is defaults.is_critical


@pytest.mark.parametrize("name", sorted(ROWS))
def test_each_row_has_a_runbook_that_leads_back(name):
    runbook = (PROJECT_DIR / runbook_of(name)).read_text()
    for part in ("**What it means.**", "**What to look at first.**", "**How to end it.**", "(../alerts.md)"):
        assert part in runbook


def test_the_outage_is_documented():
    assert set(ROWS) == {*AlertKind, "postgresql_down"}
    assert f"no answer for {DOWN_AFTER.total_seconds():.0f} seconds" in ROWS["postgresql_down"]
