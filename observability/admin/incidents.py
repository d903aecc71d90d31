"""What is wrong, and what was: incidents, the open ones first, each with whom it was told to."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from observability.alerts.kinds import KINDS, runbook_of
from observability.models import AlertKind, Incident, Notice, NoticeState

from .reading import NewestPages, ReadOnlyAdmin


@admin.register(Incident)
class IncidentAdmin(ReadOnlyAdmin):
    list_display = ("what", "state", "began", "lasted", "telling")
    list_display_links = ("what",)
    list_filter = (("rule", admin.RelatedOnlyFieldListFilter),)
    list_select_related = ("rule",)
    paginator = NewestPages
    list_per_page = 50
    change_list_template = "admin/observability/incidents_list.html"
    change_form_after_template = "admin/observability/incident_after.html"
    fieldsets = ((None, {"fields": ("what", "state", "began", "lasted", "remedy")}),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Incident]:
        incidents: QuerySet[Incident] = super().get_queryset(request).filter(opened_at__isnull=False).prefetch_related("notices")
        return incidents

    def get_ordering(self, request: HttpRequest) -> Any:
        return (F("resolved_at").desc(nulls_first=True), "-id")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return tuple(name for _, own in self.fieldsets for name in own["fields"])

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = {"title": "Incidents", "nothing": not self.get_queryset(request).exists()}
        response: HttpResponse = super().changelist_view(request, {**own, **(extra_context or {})})
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        notices = Notice.objects.filter(incident_id=int(object_id) if object_id.isdigit() else 0)
        own = {"notices": notices.select_related("target").order_by("id")}
        response: HttpResponse = super().change_view(request, object_id, form_url, {**own, **(extra_context or {})})
        return response

    @admin.display(description="what")
    def what(self, incident: Incident) -> SafeString:
        return format_html(
            '<span class="ca-cell"><span>{}</span><span class="ca-help">{}</span></span>',
            str(incident.rule).capitalize(),
            incident.text,
        )

    @admin.display(description="now")
    def state(self, incident: Incident) -> SafeString:
        label, word = ("off", "open") if incident.resolved_at is None else ("live", "over")
        return format_html('<span class="ca-label ca-label-{}">{}</span>', label, word)

    @admin.display(description="began (UTC)")
    def began(self, incident: Incident) -> str:
        return f"{incident.opened_at:%d %b %Y, %H:%M}"

    @admin.display(description="over (UTC)")
    def lasted(self, incident: Incident) -> str:
        if incident.resolved_at is None or incident.opened_at is None:
            return f"not yet; last seen {incident.last_seen_at:%H:%M}"
        minutes = max(1, round((incident.resolved_at - incident.opened_at).total_seconds() / 60))
        return f"{incident.resolved_at:%d %b %Y, %H:%M}, after {minutes:,} min"

    @admin.display(description="told")
    def telling(self, incident: Incident) -> str:
        states = [notice.state for notice in incident.notices.all()]
        if not states:
            return "nobody: there was no target"
        waiting, given_up = states.count(NoticeState.WAITING), states.count(NoticeState.GIVEN_UP)
        parts = [f"{states.count(NoticeState.SENT)} sent"]
        return ", ".join(parts + ([f"{waiting} waiting"] if waiting else []) + ([f"{given_up} given up"] if given_up else []))

    @admin.display(description="what to do")
    def remedy(self, incident: Incident) -> str:
        return f"{KINDS[AlertKind(incident.rule.kind)].remedy} More in {runbook_of(incident.rule.kind)}."
