"""The log's level, changed for a while. Each change is a row that nobody edits: a history of who looked closely, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.views.decorators.http import require_POST
from unfold import widgets
from unfold.admin import ModelAdmin

from observability.levels import change_level, level_now, restore_level
from observability.models import LogLevel

if TYPE_CHECKING:
    LogLevelModelForm = forms.ModelForm[LogLevel]
else:
    LogLevelModelForm = forms.ModelForm


class LogLevelForm(LogLevelModelForm):
    """Which level, and for how long."""

    minutes = forms.TypedChoiceField(
        label="For",
        coerce=int,
        choices=[(15, "15 minutes"), (60, "an hour"), (1440, "a day"), (7 * 1440, "a week")],
        initial=60,
        widget=widgets.UnfoldAdminSelectWidget(),
        help_text="Then LOG_LEVEL holds again, by itself.",
    )

    class Meta:
        model = LogLevel
        fields = ("level",)
        help_texts = {"level": "Lines of this level and above are written, by every process, within five seconds."}


@admin.register(LogLevel)
class LogLevelAdmin(ModelAdmin):
    form = LogLevelForm
    fields = ("level", "minutes")
    list_display = ("level", "set_at", "until", "set_by", "holds")
    list_display_links = None
    actions = None
    change_list_template = "admin/observability/levels_list.html"

    def get_urls(self) -> list[URLPattern]:
        restore = path("restore/", self.admin_site.admin_view(self.restore), name="observability_loglevel_restore")
        urls: list[URLPattern] = super().get_urls()
        return [restore, *urls]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: LogLevel, form: LogLevelForm, change: bool) -> None:
        lasting = timedelta(minutes=form.cleaned_data["minutes"])
        changed = change_level(obj.level, lasting=lasting, by=request.user.get_username())
        obj.pk, obj.set_at, obj.until, obj.set_by = changed.pk, changed.set_at, changed.until, changed.set_by

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        held = level_now()
        own = {
            "title": "Log level",
            "held": held,
            "configured": settings.LOG_LEVEL,
            "changed": LogLevel.objects.filter(until__gt=timezone.now()).first(),
            "may_add": self.has_add_permission(request),
        }
        response: HttpResponse = super().changelist_view(request, {**own, **(extra_context or {})})
        return response

    def restore(self, request: HttpRequest) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return _restore(request)

    @admin.display(description="holds now", boolean=True)
    def holds(self, level: LogLevel) -> bool:
        return level.until > timezone.now()


@require_POST
def _restore(request: HttpRequest) -> HttpResponseBase:
    restore_level(by=request.user.get_username())
    messages.success(request, f"LOG_LEVEL ({settings.LOG_LEVEL}) holds again within five seconds.")
    return redirect("admin:observability_loglevel_changelist")
