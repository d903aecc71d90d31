"""The pages on hosting and operating lead to what exists, and name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.management import get_commands

from chatbot_site.settings.environment import PROJECT_DIR, Environment
from tests.hosting.platform import PROCFILE

DOCS = PROJECT_DIR / "docs"
PAGES = [DOCS / "hosting.md", DOCS / "operating.md"]


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, DOCS / "settings.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if link.startswith("https://"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_alert_has_its_page_in_the_index():
    operating = (DOCS / "operating.md").read_text()
    assert [file.name for file in (DOCS / "runbooks").glob("*.md") if f"(runbooks/{file.name})" not in operating] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_variables_exist(page):
    text = page.read_text()
    assert set(re.findall(r"manage\.py (\w+)", text)) <= set(get_commands())
    theirs = {"RAILWAY_ENVIRONMENT_NAME", "RAILWAY_TOKEN", "SERVER_URL", "HOSTS", "BYPASSRLS", "BACKUP_URL", "PORT", "POST", "SIGTERM"}
    unknown = {name for name in re.findall(r"`([A-Z][A-Z_]+)(?:=[^`]*)?`", text) if name.lower() not in Environment.model_fields}
    assert unknown <= theirs


def test_the_table_of_processes_is_the_procfile():
    rows = re.findall(r"^\| (web|worker) \|[^|]*\| `([^`]*)` \|$", PAGES[0].read_text(), re.MULTILINE)
    assert dict(rows) == {name: PROCFILE[name] for name in ("web", "worker")}
