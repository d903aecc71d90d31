"""When to alert: one rule for each kind of trouble, changed in plain words, and tried with *Send test*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold import widgets
from unfold.admin import ModelAdmin

from observability.alerts.kinds import KINDS, runbook_of
from observability.models import AlertKind, AlertRule, AlertTarget

from .figures import bound
from .sending_tests import test_rule

if TYPE_CHECKING:
    RuleModelForm = forms.ModelForm[AlertRule]
else:
    RuleModelForm = forms.ModelForm

_DAY_MINUTES: Final = 1440
# Each in minutes on the page, and in seconds in the column of that name with `_s`.
_DURATIONS: Final = ("window", "holds", "clears", "again_every")


def _minutes(label: str, help_text: str) -> forms.FloatField:
    return forms.FloatField(label=f"{label} (minutes)", widget=widgets.UnfoldAdminDecimalFieldWidget(), help_text=help_text)


class RuleForm(RuleModelForm):
    """A rule, its durations in minutes."""

    window = _minutes("Look back", "Over how long it is counted.")
    holds = _minutes("Tell after", "How long it must go on before anybody is told. 0: at once.")
    clears = _minutes("Over after", "How long it must be gone before it is over, so that what comes and goes is told once. 0: at once.")
    again_every = _minutes("Tell again every", "While it goes on. 0: never.")

    targets = forms.ModelMultipleChoiceField(
        AlertTarget.objects.all(),
        required=False,
        widget=widgets.UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="None chosen: all of them. ALERT_WEBHOOK_URL is told everything.",
    )

    class Meta:
        model = AlertRule
        fields = ("is_active", "is_critical", "threshold", "targets")
        help_texts = {
            "is_active": "Switched off, it tells nothing, and what it told is over.",
            "is_critical": "Told in quiet hours, too.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        kind = KINDS[AlertKind(self.instance.kind)]
        if "threshold" in fields:
            fields["threshold"].label = f"At least so many {kind.measure}"
            self.initial["threshold"] = f"{self.instance.threshold:g}"  # 20, not 20.0
        if not kind.window_s:
            fields.pop("window", None)
        bound(fields, "threshold")
        bound(fields, *_DURATIONS, most=7 * _DAY_MINUTES)
        bound(fields, "window", least=1, most=_DAY_MINUTES)
        for name in _DURATIONS:
            if name in fields:
                self.initial[name] = f"{getattr(self.instance, f'{name}_s') / 60:g}"

    def _post_clean(self) -> None:
        for name in _DURATIONS:
            if self.cleaned_data.get(name) is not None:
                setattr(self.instance, f"{name}_s", round(self.cleaned_data[name] * 60))
        super()._post_clean()  # type: ignore[misc] # ModelForm has it; the stubs leave it out


@admin.register(AlertRule)
class AlertRuleAdmin(ModelAdmin):
    form = RuleForm
    list_display = ("rule", "state", "when", "told")
    list_display_links = ("rule",)
    actions = None
    change_list_template = "admin/observability/rules_list.html"
    change_form_before_template = "admin/observability/rule_before.html"

    def get_urls(self) -> list[URLPattern]:
        urls: list[URLPattern] = super().get_urls()
        # Async: it checks the person itself.
        return [path("<int:rule_id>/test/", test_rule, name="observability_alertrule_test"), *urls]

    def get_fieldsets(self, request: HttpRequest, obj: AlertRule | None = None) -> list[tuple[str | None, dict[str, Any]]]:
        windowed = ["window"] if obj and KINDS[AlertKind(obj.kind)].window_s else []
        if not self.has_change_permission(request, obj):
            return [(None, {"fields": ["is_active", "is_critical", "when", "told"]})]
        return [
            (None, {"fields": ["is_active", "is_critical"]}),
            ("When", {"fields": ["threshold", *windowed, "holds", "clears", "again_every"]}),
            ("Who is told", {"fields": ["targets"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: AlertRule | None = None) -> tuple[str, ...]:
        return () if self.has_change_permission(request, obj) else ("when", "told")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AlertRule | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        nobody = not settings.ALERT_WEBHOOK_URL and not AlertTarget.objects.filter(is_active=True).exists()
        own = {"title": "Alert rules", "nobody": nobody, "may_add_target": request.user.has_perm("observability.add_alerttarget")}
        response: HttpResponse = super().changelist_view(request, {**own, **(extra_context or {})})
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        rule = self.get_object(request, object_id)
        own = {"about": KINDS[AlertKind(rule.kind)], "runbook": runbook_of(rule.kind), "title": str(rule).capitalize()} if rule else {}
        response: HttpResponse = super().change_view(request, object_id, form_url, {**own, **(extra_context or {})})
        return response

    @admin.display(description="rule")
    def rule(self, rule: AlertRule) -> str:
        return str(rule).capitalize()

    @admin.display(description="is")
    def state(self, rule: AlertRule) -> SafeString:
        label, word = ("live", "on") if rule.is_active else ("quiet", "off")
        critical = format_html(' <span class="ca-label ca-label-draft">{}</span>', "critical") if rule.is_critical else ""
        return format_html('<span class="ca-labels"><span class="ca-label ca-label-{}">{}</span>{}</span>', label, word, critical)

    @admin.display(description="tells when at least")
    def when(self, rule: AlertRule) -> SafeString:
        kind = KINDS[AlertKind(rule.kind)]
        within = f", within {rule.window_s / 60:g} min" if kind.window_s else ""
        holds = f", for {rule.holds_s / 60:g} min" if rule.holds_s else ""
        return format_html('<span class="ca-cell"><span>{}</span></span>', f"{rule.threshold:g} {kind.measure}{within}{holds}")

    @admin.display(description="told")
    def told(self, rule: AlertRule) -> str:
        return ", ".join(target.name for target in rule.targets.all()) or "everybody"
