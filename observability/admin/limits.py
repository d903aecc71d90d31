"""Rate limits: for each address, session, key and agent, or for one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from unfold import widgets
from unfold.admin import ModelAdmin

from observability.models import Limit, LimitScope
from observability.naming import agent_choices, key_choices

from .figures import with_current

if TYPE_CHECKING:
    LimitModelForm = forms.ModelForm[Limit]
else:
    LimitModelForm = forms.ModelForm

_MEASURES = ("requests_per_minute", "tokens_per_minute", "concurrent")


class LimitForm(LimitModelForm):
    """A limit for each of a kind, or for one key or agent."""

    one_key = forms.ChoiceField(
        label="Only for this API key",
        required=False,
        widget=widgets.UnfoldAdminSelectWidget(),
        help_text="Goes before the limit for each key.",
    )
    one_agent = forms.ChoiceField(
        label="Only for this agent",
        required=False,
        widget=widgets.UnfoldAdminSelectWidget(),
        help_text="Goes before the limit for each agent.",
    )

    class Meta:
        model = Limit
        fields = ("scope", "one_key", "one_agent", *_MEASURES)
        help_texts = {
            "requests_per_minute": "Messages a minute. Empty: any number.",
            "tokens_per_minute": "Tokens sent to and answered by models, a minute. Empty: any number.",
            "concurrent": "Answers that may be under way at the same time. Empty: any number.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "one_key" in self.fields:
            choosing: dict[str, Any] = self.fields
            choosing["one_key"].choices = with_current(key_choices(), "", empty="each key")
            choosing["one_agent"].choices = with_current(agent_choices(), "", empty="each agent")

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if "one_key" not in self.fields or "scope" not in data:
            return data
        names = {LimitScope.KEY: data.get("one_key", ""), LimitScope.AGENT: data.get("one_agent", "")}
        name = names.pop(data["scope"], "")
        for field, scope in (("one_key", LimitScope.KEY), ("one_agent", LimitScope.AGENT)):
            if names.get(scope):
                self.add_error(field, f"Choose “{scope.label}” above, or leave this at “{scope.label}”.")
        if Limit.objects.filter(scope=data["scope"], name=name).exclude(pk=self.instance.pk).exists():
            self.add_error("scope", "There is a limit for this already. Change that one.")
        self.instance.name = name
        return data


@admin.register(Limit)
class LimitAdmin(ModelAdmin):
    form = LimitForm
    list_display = ("whom", "requests", "tokens", "at_once")
    list_display_links = ("whom",)
    actions = None
    change_list_template = "admin/observability/limits_list.html"
    change_form_before_template = "admin/observability/limit_before.html"

    def get_fields(self, request: HttpRequest, obj: Limit | None = None) -> tuple[str, ...]:
        return ("scope", "one_key", "one_agent", *_MEASURES) if obj is None else ("whom", *_MEASURES)

    def get_readonly_fields(self, request: HttpRequest, obj: Limit | None = None) -> tuple[str, ...]:
        return () if obj is None else ("whom",)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if obj is not None:
            # Whom a limit is for stays: the form has no field for it, and declared ones are not left out by themselves.
            form.base_fields = {name: field for name, field in form.base_fields.items() if name in _MEASURES}
        return form

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        general = set(Limit.objects.filter(name="").values_list("scope", flat=True))
        anonymous = settings.ANONYMOUS_REQUESTS_PER_MINUTE
        unset = [
            (scope, f"{anonymous} requests a minute" if scope == LimitScope.ADDRESS and anonymous else "no limit")
            for scope in LimitScope
            if scope not in general
        ]
        own = {"title": "Limits", "unset": unset, "nothing": not Limit.objects.exists(), "may_add": self.has_add_permission(request)}
        response: HttpResponse = super().changelist_view(request, {**own, **(extra_context or {})})
        return response

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"scope": request.GET.get("scope", LimitScope.KEY)}

    @admin.display(description="for", ordering="scope")
    def whom(self, limit: Limit) -> str:
        if not limit.name:
            return limit.get_scope_display()
        kind, choices = ("API key", key_choices()) if limit.scope == LimitScope.KEY else ("agent", agent_choices())
        return f"{kind} {dict(choices).get(limit.name, limit.name)}"

    @admin.display(description="requests a minute", ordering="requests_per_minute")
    def requests(self, limit: Limit) -> str:
        return _shown(limit.requests_per_minute)

    @admin.display(description="tokens a minute", ordering="tokens_per_minute")
    def tokens(self, limit: Limit) -> str:
        return _shown(limit.tokens_per_minute)

    @admin.display(description="answers at once", ordering="concurrent")
    def at_once(self, limit: Limit) -> str:
        return _shown(limit.concurrent)


def _shown(quota: int | None) -> str:
    return "no limit" if quota is None else f"{quota:,}"
