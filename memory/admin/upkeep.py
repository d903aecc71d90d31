"""Passes of upkeep in the admin, read-only: what was forgotten, when and why, and how far the one under way is."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from memory.models import UpkeepRun

from .reading import ReadOnlyAdmin, shown


@admin.register(UpkeepRun)
class UpkeepRunAdmin(ReadOnlyAdmin):
    """Every hour's pass and each that somebody started, the newest first."""

    list_display = ("started", "kind", "state_label", "progress", "deleted", "took", "actor")
    list_filter = ("is_dry", "started_at")
    ordering = ("-started_at",)
    fields = ("started", "kind", "state_label", "progress", "took", "actor", "reasons", "error")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.fields

    @admin.display(description="began (UTC)", ordering="started_at")
    def started(self, run: UpkeepRun) -> str:
        return shown(run.started_at)

    @admin.display(description="kind")
    def kind(self, run: UpkeepRun) -> str:
        return "dry run: only counted" if run.is_dry else "upkeep"

    @admin.display(description="state")
    def state_label(self, run: UpkeepRun) -> SafeString:
        word, label = ("running", "quiet") if run.finished_at is None else ("broken off", "off") if run.error else ("done", "live")
        return format_html('<span class="ca-label ca-label-{}">{}</span>', label, word)

    @admin.display(description="looked at")
    def progress(self, run: UpkeepRun) -> str:
        return f"{run.done} of {run.total}"

    @admin.display(description="rows")
    def deleted(self, run: UpkeepRun) -> int:
        return sum(count for own in run.counts.values() for count in own.values())

    @admin.display(description="took")
    def took(self, run: UpkeepRun) -> str:
        return f"{(run.finished_at - run.started_at).total_seconds():.1f} s" if run.finished_at else "not yet"

    @admin.display(description="rows by agent and reason", empty_value="none")
    def reasons(self, run: UpkeepRun) -> SafeString | None:
        rows = [
            (agent or "no agent", reason.replace("_", " "), count)
            for agent, own in sorted(run.counts.items())
            for reason, count in own.items()
        ]
        lines = format_html_join("", "<li>{}: {}, {}</li>", rows)
        return format_html("<ul>{}</ul>", lines) if rows else None
