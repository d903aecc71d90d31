"""`manage.py agents list | export | apply`: agents as files (docs/agents-as-files.md).

Exit codes: 0 done, or nothing to do; 1 an error, and nothing was changed; 2 `apply --dry-run` found changes to make.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from agents.models import Agent
from agents.versions.comparison import FieldChange
from agents.versions.documents import AgentDocument, Applied, apply_document, export_agent, read_document
from agents.versions.drafts import draft_of
from agents.versions.formats import FORMATS, MAX_CHARS
from observability.errors import ChatbotError

SUFFIXES: Final = (".yaml", ".yml", ".json")
WOULD_CHANGE: Final = 2
SIGNS: Final = {"same": "  ", "removed": "- ", "added": "+ ", "gap": "…"}


class Command(BaseCommand):
    help = "List agents, export them to files, or bring them in step with files."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("list", help="show every agent, its live version and its draft")
        export = actions.add_parser("export", help="write each agent's live version to a file of its own")
        export.add_argument("slugs", nargs="*", metavar="slug", help="only these agents; none: all")
        export.add_argument("--to", default="-", metavar="DIR", help="the folder to write to; '-' prints (the default)")
        export.add_argument("--format", choices=FORMATS, default="yaml")
        export.add_argument("--draft", action="store_true", help="the draft instead, where there is one")
        apply = actions.add_parser("apply", help="bring agents in step with files: each difference becomes a draft")
        apply.add_argument("paths", nargs="+", metavar="path", help="files, folders of files, or '-' to read one from the standard input")
        apply.add_argument(
            "--dry-run", action="store_true", help="show what would change and change nothing; exit code 2 if anything would"
        )
        apply.add_argument("--publish", action="store_true", help="make what the files say live")
        apply.add_argument("--replace-draft", action="store_true", help="overwrite drafts that somebody else began")

    def handle(self, *, action: str, **options: Any) -> None:
        try:
            runs: dict[str, Callable[..., None]] = {"list": self._list, "export": self._export, "apply": self._apply}
            runs[action](**options)
        except ChatbotError as error:
            raise CommandError(error.detail) from None
        except OSError as error:
            raise CommandError(f"{error.filename or 'The output'}: {error.strerror}. Check the path and who may use it.") from None

    def _list(self, **options: Any) -> None:
        agents = Agent.objects.select_related("live_version")
        rows = [("AGENT", "LIVE", "DRAFT", "ACCESS", "ACTIVE", "NAME")]
        for agent in agents:
            live = f"v{agent.live_version.number}" if agent.live_version else "-"
            draft = draft_of(agent)
            rows.append(
                (agent.slug, live, f"v{draft.number}" if draft else "-", agent.access, "yes" if agent.is_active else "no", agent.name)
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
        for row in rows:
            self.stdout.write("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))

    def _export(self, *, slugs: list[str], to: str, format: str, draft: bool, **options: Any) -> None:
        texts = {agent.slug: export_agent(agent, draft=draft, format=format) for agent in _agents(slugs)}
        if to == "-":
            if format == "json" and len(texts) != 1:
                raise CommandError("Only one agent can be printed as JSON. Name it, or write to a folder: --to DIR.")
            self.stdout.write("---\n".join(texts.values()), ending="")
            return
        folder = Path(to)
        folder.mkdir(parents=True, exist_ok=True)
        for slug, text in texts.items():
            file = folder / f"{slug}.{format}"
            file.write_text(text, encoding="utf-8", newline="\n")
            self.stderr.write(f"wrote {file}")

    def _apply(self, *, paths: list[str], dry_run: bool, publish: bool, replace_draft: bool, **options: Any) -> None:
        documents = _documents(paths)
        # One transaction: an error in one file leaves everything as it was. A dry run does it all, then takes it back.
        with transaction.atomic():
            results = [
                _apply_one(document, source=source, publish=publish, replace_draft=replace_draft) for source, document in documents.items()
            ]
            if dry_run:
                transaction.set_rollback(True)
        for applied in results:
            self.stdout.write(describe(applied, dry_run=dry_run))
        if dry_run and any(applied.is_change for applied in results):
            sys.exit(WOULD_CHANGE)


def describe(applied: Applied, *, dry_run: bool = False) -> str:
    """Return what was done to one agent, and its diff, for a terminal."""
    action = f"would be {applied.action}" if dry_run and applied.is_change else applied.action
    lines = [f"{applied.slug}: {action} (version {applied.version})"]
    for change in (*applied.agent_changes, *applied.changes):
        lines += _described(change)
    return "\n".join(lines)


def _described(change: FieldChange) -> list[str]:
    if not change.diff:
        return [f"  {change.label}: {_inline(change.old)} -> {_inline(change.new)}"]
    return [f"  {change.label}:", *(f"    {SIGNS[line.kind]}{_visible(line.text)}".rstrip() for line in change.diff)]


def _inline(text: str) -> str:
    return _visible(text.replace("\n", "; ")) or "(empty)"


def _visible(text: str) -> str:
    # A file may hold control characters; none of them reaches the terminal.
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _agents(slugs: list[str]) -> list[Agent]:
    agents = Agent.objects.all()
    if not slugs:
        return list(agents)
    found = {agent.slug: agent for agent in agents.filter(slug__in=slugs)}
    if absent := [slug for slug in slugs if slug not in found]:
        raise CommandError(f"There is no agent {', '.join(absent)}. `manage.py agents list` shows those that exist.")
    return [found[slug] for slug in dict.fromkeys(slugs)]


def _documents(paths: list[str]) -> dict[str, AgentDocument]:
    documents: dict[str, AgentDocument] = {}
    sources: dict[str, str] = {}
    for path in paths:
        for source, text in _texts(path):
            document = read_document(text, source=source)
            if document.slug in sources:
                raise CommandError(f"{source}: {sources[document.slug]} describes the agent {document.slug} too. Leave one of them out.")
            sources[document.slug] = source
            documents[source] = document
    return documents


def _texts(path: str) -> list[tuple[str, str]]:
    if path == "-":
        return [("standard input", sys.stdin.read(MAX_CHARS + 1))]
    place = Path(path)
    files = sorted(file for file in place.iterdir() if file.suffix in SUFFIXES) if place.is_dir() else [place]
    if not files:
        raise CommandError(f"{path}: there is no file that ends in {', '.join(SUFFIXES)}. Name the right folder, or a file.")
    return [(str(file), _read(file)) for file in files]


def _read(file: Path) -> str:
    with file.open("rb") as stream:
        content = stream.read(4 * MAX_CHARS + 1)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandError(f"{file}: this is no UTF-8 text. Save it as UTF-8.") from None


def _apply_one(document: AgentDocument, *, source: str, publish: bool, replace_draft: bool) -> Applied:
    try:
        return apply_document(document, author=None, publish=publish, replace_draft=replace_draft, source=source)
    except ChatbotError as error:
        if error.detail.startswith(source):
            raise
        raise CommandError(f"{source}: {error.detail}") from None
