"""Where alerts go: targets, whose addresses go in and never come out, and *Send test*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold import widgets
from unfold.admin import ModelAdmin

from observability.alerts.addresses import SERVER_HELP, read_address, set_address
from observability.alerts.delivery import NotTaken, try_address
from observability.alerts.sending import give_up_for
from observability.models import AlertTarget, Notice, NoticeState, TargetKind

from .budgets import time_zones
from .sending_tests import test_target

if TYPE_CHECKING:
    TargetModelForm = forms.ModelForm[AlertTarget]
else:
    TargetModelForm = forms.ModelForm

_QUIET = ("quiet_from", "quiet_until", "time_zone")
_SHOWN_NOTICES = 20


class TargetForm(TargetModelForm):
    """A target, with an address that can be written and never read."""

    to = forms.CharField(
        label="Address",
        required=False,
        max_length=2000,
        widget=widgets.UnfoldAdminTextInputWidget({"autocomplete": "off", "spellcheck": "false"}),
        help_text="Slack, Discord: the webhook's address, as they show it to you. E-mail: people's addresses, with commas between them. "
        "Webhook: where to POST JSON. Stored encrypted and never shown again.",
    )
    server = forms.CharField(
        label="Mail server",
        required=False,
        max_length=1000,
        widget=widgets.UnfoldAdminPasswordWidget({"autocomplete": "off", "spellcheck": "false"}),
        help_text=f"For e-mail only; empty: the one in the setting EMAIL_URL. {SERVER_HELP}",
    )
    time_zone = forms.ChoiceField(
        choices=time_zones, initial="UTC", widget=widgets.UnfoldAdminSelectWidget(), help_text="By whose clock the hours are quiet."
    )

    class Meta:
        model = AlertTarget
        fields = ("name", "is_active", "kind", *_QUIET)
        help_texts = {
            "quiet_from": "From this time on only critical alerts are sent; the rest comes together afterwards. Empty: no quiet hours.",
            "quiet_until": "May be on the next day.",
            "is_active": "Switched off, it is told nothing; what waits for it is given up.",
        }

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if (data.get("quiet_from") is None) != (data.get("quiet_until") is None):
            self.add_error("quiet_until", "Quiet hours have a beginning and an end.")
        if "to" in self.fields and "kind" in data:
            self._read_address(data["kind"], data.get("to", ""), data.get("server", ""))
        return data

    def _read_address(self, kind: str, to: str, server: str) -> None:
        if self.instance.pk and not to and not server and kind == self.initial.get("kind"):
            return  # the stored one stays
        try:
            address = read_address(kind, to, server=server)
            if kind == TargetKind.EMAIL and not address.mail_server:
                raise ValidationError("There is no mail server: enter one, or set EMAIL_URL.")
            async_to_sync(try_address)(kind, address)
        except ValidationError as error:
            self.add_error("to", error)
        except NotTaken:
            self.add_error("to", "This address cannot be understood. Copy it again.")
        else:
            self.instance.kind = kind
            set_address(self.instance, address)


@admin.register(AlertTarget)
class AlertTargetAdmin(ModelAdmin):
    form = TargetForm
    list_display = ("target", "kind", "leads_to", "standing", "quiet")
    list_display_links = ("target",)
    actions = None
    change_list_template = "admin/observability/targets_list.html"
    change_form_before_template = "admin/observability/target_before.html"
    change_form_after_template = "admin/observability/target_after.html"

    def get_urls(self) -> list[URLPattern]:
        urls: list[URLPattern] = super().get_urls()
        # Async: it checks the person itself.
        return [path("<int:target_id>/test/", test_target, name="observability_alerttarget_test"), *urls]

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        # A list that can be filtered by a column tells what the column holds, letter by letter.
        allowed: bool = super().lookup_allowed(lookup, value, request)
        return allowed and not lookup.startswith("sealed_address")

    def get_fieldsets(self, request: HttpRequest, obj: AlertTarget | None = None) -> list[tuple[str | None, dict[str, Any]]]:
        may_write = self._may_write(request, obj)
        address = ["kind", "to", "server"] if may_write else ["kind", "leads_to"]
        return [
            (None, {"fields": ["name", "is_active"]}),
            ("Where it is", {"fields": ["leads_to", *address] if obj and may_write else address}),
            ("Quiet hours", {"fields": list(_QUIET)}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: AlertTarget | None = None) -> tuple[str, ...]:
        return ("leads_to",)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if not self._may_write(request, obj):
            form.base_fields = {name: field for name, field in form.base_fields.items() if name not in {"to", "server"}}
        return form

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = {
            "title": "Alert targets",
            "nothing": not AlertTarget.objects.exists(),
            "may_add": self.has_add_permission(request),
            "has_webhook": bool(settings.ALERT_WEBHOOK_URL),
        }
        response: HttpResponse = super().changelist_view(request, {**own, **(extra_context or {})})
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        notices: QuerySet[Notice] = Notice.objects.filter(target_id=int(object_id) if object_id.isdigit() else 0).select_related("incident")
        own = {"notices": notices.order_by("-id")[:_SHOWN_NOTICES]}
        response: HttpResponse = super().change_view(request, object_id, form_url, {**own, **(extra_context or {})})
        return response

    def save_model(self, request: HttpRequest, obj: AlertTarget, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not obj.is_active and (given_up := give_up_for(obj)):
            messages.info(request, f"{given_up:,} waiting {'notice was' if given_up == 1 else 'notices were'} given up.")

    @admin.display(description="target", ordering="name")
    def target(self, target: AlertTarget) -> str:
        return target.name

    @admin.display(description="leads to")
    def leads_to(self, target: AlertTarget) -> str:
        return target.shown_as

    @admin.display(description="now")
    def standing(self, target: AlertTarget) -> SafeString:
        waiting = Notice.objects.filter(target=target, state=NoticeState.WAITING).exclude(last_error="").order_by("-id").first()
        if not target.is_active:
            return _label("quiet", "switched off", "")
        if waiting:
            return _label("off", "fails", waiting.last_error)
        last = Notice.objects.filter(target=target).exclude(state=NoticeState.WAITING).order_by("-id").first()
        if last is None:
            return _label("quiet", "nothing sent yet", "")
        if last.state == NoticeState.GIVEN_UP:
            return _label("off", "given up", last.last_error)
        return _label("live", "takes alerts", f"last on {last.sent_at:%d %b, %H:%M} UTC")

    @admin.display(description="quiet hours")
    def quiet(self, target: AlertTarget) -> str:
        if target.quiet_from is None or target.quiet_until is None:
            return "none"
        return f"{target.quiet_from:%H:%M} to {target.quiet_until:%H:%M} ({target.time_zone})"

    def _may_write(self, request: HttpRequest, obj: AlertTarget | None) -> bool:
        return bool(self.has_change_permission(request, obj) if obj else self.has_add_permission(request))


def _label(kind: str, word: str, more: str) -> SafeString:
    return format_html(
        '<span class="ca-cell"><span><span class="ca-label ca-label-{}">{}</span></span><span class="ca-help">{}</span></span>',
        kind,
        word,
        more,
    )
