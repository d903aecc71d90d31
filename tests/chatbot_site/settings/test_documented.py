"""docs/settings.md and .env.example list every setting, with its default and in words."""

import re

import pytest

from chatbot_site.settings.environment import PROJECT_DIR, Environment

DOCS = (PROJECT_DIR / "docs" / "settings.md").read_text()
EXAMPLE = (PROJECT_DIR / ".env.example").read_text()
ROWS = {
    name: (default.strip("` "), words) for name, default, words in re.findall(r"^\| `([A-Z_]+)` \|([^|]*)\| (.*) \|$", DOCS, re.MULTILINE)
}
LINES = {name: (default, words) for words, name, default in re.findall(r"^# (.*)\n# ([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE)}


def written(value):
    """How a default stands in a file."""
    if value in ("", [], None):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removeprefix(f"{PROJECT_DIR}/")


DEFAULTS = {name.upper(): written(field.default) for name, field in Environment.model_fields.items()}


@pytest.mark.parametrize("listed", [ROWS, LINES], ids=["docs/settings.md", ".env.example"])
def test_every_setting_is_listed_with_its_default(listed):
    assert {name: default for name, (default, _) in listed.items()} == DEFAULTS


@pytest.mark.parametrize("listed", [ROWS, LINES], ids=["docs/settings.md", ".env.example"])
def test_every_setting_is_explained(listed):
    assert [name for name, (_, words) in listed.items() if len(words.split()) < 2 and name != "LOG_LEVEL"] == []


def test_the_example_sets_nothing():
    assert [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")] == []


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_field_has_a_remedy(name):
    assert len(Environment.model_fields[name.lower()].description or "") > 10


def test_bounds_are_documented():
    for name, field in Environment.model_fields.items():
        for bound in field.metadata:
            for limit in filter(None, (getattr(bound, "ge", None), getattr(bound, "le", None))):
                assert f"{limit:,}" in ROWS[name.upper()][1] or str(limit) in ROWS[name.upper()][1], name
                assert f"{limit:,}" in field.description or str(limit) in field.description, name
