"""Budgets: what may be spent on what, and how much of it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from unfold import widgets
from unfold.admin import ModelAdmin

from observability.alerts.standing import who_is_told
from observability.budget_standing import standing_in, standings
from observability.budgets import begin_period
from observability.models import AlertKind, AlertRule, Budget, BudgetPeriod, BudgetScope
from observability.naming import agent_choices, key_choices

from .figures import bound, with_current

if TYPE_CHECKING:
    BudgetModelForm = forms.ModelForm[Budget]
else:
    BudgetModelForm = forms.ModelForm

# A budget counts from its first day for what it was made for; for something else one makes another budget.
FIXED: Final = ("scope", "agent", "key", "period", "time_zone")
_LIMITS: Final = ("limit_usd", "limit_tokens", "on_unknown_price", "cheaper_at")
_SHOWN_PERIODS: Final = 12


def time_zones() -> list[tuple[str, str]]:
    """Return the time zones that people choose from."""
    usual = sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "posix/", "right/", "SystemV/")))
    return [(name, name) for name in ("UTC", *usual)]


class BudgetForm(BudgetModelForm):
    """What may be spent, in plain words."""

    agent = forms.ChoiceField(
        required=False,
        widget=widgets.UnfoldAdminSelectWidget(),
        help_text="Which one, of a budget for one agent. With a key or for each end user: only what this agent spends.",
    )
    key = forms.ChoiceField(
        label="API key",
        required=False,
        widget=widgets.UnfoldAdminSelectWidget(),
        help_text="Which one, of a budget for one key. For each end user: only what is spent with this key.",
    )
    time_zone = forms.ChoiceField(
        choices=time_zones, initial="UTC", widget=widgets.UnfoldAdminSelectWidget(), help_text="Where a day, a week or a month begins."
    )

    class Meta:
        model = Budget
        fields = ("name", *FIXED, *_LIMITS, "is_active")
        labels = {"on_unknown_price": "Calls whose price is unknown", "name": "Name"}
        help_texts = {
            "name": "What refusals and alerts call it. Whoever is refused reads it.",
            "limit_usd": "US dollars in each period. Empty: any sum.",
            "limit_tokens": "Tokens in each period, sent and answered. Empty: any number.",
            "on_unknown_price": "Where there is a limit in US dollars.",
            "is_active": "Switched off, it limits nothing.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choosing: dict[str, Any] = self.fields
        if (limit := self.initial.get("limit_usd")) is not None:
            self.initial["limit_usd"] = f"{limit:.4f}".rstrip("0").rstrip(".")  # 5, not 5.0000
        bound(choosing, "limit_usd", "limit_tokens")
        bound(choosing, "cheaper_at", least=1, most=100)
        for name, choices, empty in (("agent", agent_choices, "any agent"), ("key", key_choices, "any key, or none")):
            if name in choosing:
                choosing[name].choices = with_current(choices(), getattr(self.instance, name), empty=empty)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("limit_usd") is None and data.get("limit_tokens") is None and not {"limit_usd", "limit_tokens"} & set(self.errors):
            self.add_error("limit_usd", "Enter a limit in US dollars, in tokens, or both.")
        if "scope" in data:
            self._check_whose(data["scope"], agent=data.get("agent", ""), key=data.get("key", ""))
        return data

    def _check_whose(self, scope: str, *, agent: str, key: str) -> None:
        if scope == BudgetScope.AGENT and not agent:
            self.add_error("agent", "Choose the agent.")
        if scope == BudgetScope.KEY and not key:
            self.add_error("key", "Choose the API key.")
        if scope == BudgetScope.ALL and agent:
            self.add_error("agent", "A budget for everything holds for any agent. For this one, choose “one agent” above.")
        if scope in (BudgetScope.ALL, BudgetScope.AGENT) and key:
            self.add_error("key", "For what is spent with this key, choose “one API key” above.")


@admin.register(Budget)
class BudgetAdmin(ModelAdmin):
    form = BudgetForm
    list_display = ("name", "whose", "standing", "resets")
    list_display_links = ("name",)
    actions = None
    change_list_template = "admin/observability/budgets_list.html"
    change_form_before_template = "admin/observability/budget_before.html"

    def get_fieldsets(self, request: HttpRequest, obj: Budget | None = None) -> list[tuple[str | None, dict[str, Any]]]:
        whose = ("scope", "agent", "key", "period", "time_zone") if obj is None else ("whose", "every")
        return [
            (None, {"fields": ["name", "is_active"]}),
            ("For what, and when it begins anew", {"fields": list(whose)}),
            ("How much", {"fields": list(_LIMITS)}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Budget | None = None) -> tuple[str, ...]:
        return () if obj is None else ("whose", "every")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if obj is not None:
            form.base_fields = {name: field for name, field in form.base_fields.items() if name not in FIXED}
        return form

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        budgets = list(changelist.result_list)
        found = standings(budgets)
        for budget in budgets:
            budget.now = found[budget.pk]
        changelist.result_list = budgets
        return changelist

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = {"title": "Budgets", "nothing": not Budget.objects.exists(), "may_add": self.has_add_permission(request)}
        response: HttpResponse = super().changelist_view(request, {**own, **(extra_context or {})})
        return response

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response: HttpResponse = super().add_view(request, form_url, {**_telling(), **(extra_context or {})})
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        budget = self.get_object(request, object_id)
        own: dict[str, Any] = _telling()
        if budget is not None:
            past = BudgetPeriod.objects.filter(budget=budget, ends_at__lte=datetime.now(UTC))
            own |= {
                "now": standings([budget])[budget.pk],
                "past": [standing_in(budget, period) for period in past.order_by("-starts_at", "-spent_usd")[:_SHOWN_PERIODS]],
            }
        response: HttpResponse = super().change_view(request, object_id, form_url, {**own, **(extra_context or {})})
        return response

    def save_model(self, request: HttpRequest, obj: Budget, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        begin_period(obj, at=datetime.now(UTC), was_off=change and "is_active" in form.changed_data and obj.is_active)
        messages.info(request, "The budget holds within a second." if obj.is_active else "The budget limits nothing within a second.")

    @admin.display(description="for")
    def whose(self, budget: Budget) -> str:
        key = dict(key_choices()).get(budget.key, budget.key) if budget.key else ""
        agent = dict(agent_choices()).get(budget.agent, budget.agent) if budget.agent else ""
        match budget.scope:
            case BudgetScope.KEY:
                return f"API key {key}" + (f", with agent {agent} only" if agent else "")
            case BudgetScope.AGENT:
                return f"agent {agent}"
            case BudgetScope.USER:
                return "each end user" + (f" of API key {key}" if key else "") + (f", with agent {agent} only" if agent else "")
            case _:
                return "everything"

    @admin.display(description="every")
    def every(self, budget: Budget) -> str:
        return f"{budget.get_period_display().partition(' ')[2]}, as in {budget.time_zone}"

    @admin.display(description="spent")
    def standing(self, budget: Budget) -> SafeString:
        return render_to_string("admin/observability/_standing.html", {"budget": budget, "now": budget.now})  # type: ignore[attr-defined] # set by get_changelist_instance

    @admin.display(description="begins anew")
    def resets(self, budget: Budget) -> str:
        return f"{budget.now.resets} ({budget.time_zone})"  # type: ignore[attr-defined] # set by get_changelist_instance


def _telling() -> dict[str, Any]:
    """Return whom alerts tell of budgets, and at which steps: an owner relies on it."""
    rule = AlertRule.objects.filter(kind=AlertKind.BUDGET).first()
    steps = [f"{step} %" for step in (50, 80, 100) if rule and step >= rule.threshold] or ["100 %"]
    return {
        "told": who_is_told(AlertKind.BUDGET),
        "steps": " and ".join([", ".join(steps[:-1]), steps[-1]] if steps[1:] else steps),
        "alert_rule": rule,
    }
