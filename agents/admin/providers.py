"""Providers in the admin: where models run, and their keys, which go in and never come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from unfold import widgets
from unfold.admin import ModelAdmin

from agents.models import Provider
from agents.providers.changes import apply_key, check_change
from agents.providers.keys import UnreadableKey, key_of
from observability.api import open_breakers

from .probing import probe

if TYPE_CHECKING:
    ProviderModelForm = forms.ModelForm[Provider]
else:
    ProviderModelForm = forms.ModelForm

TIMEOUTS: Final = ("connect_timeout_s", "first_token_timeout_s", "between_tokens_timeout_s", "total_timeout_s")


class ProviderForm(ProviderModelForm):
    """A provider with a key that can be written and never read."""

    key = forms.CharField(
        label="API key",
        required=False,
        max_length=4096,
        widget=widgets.UnfoldAdminPasswordWidget({"autocomplete": "off", "spellcheck": "false"}),
        help_text="Stored encrypted and never shown again. Leave empty to keep the stored one, or for a server that needs no key. "
        "With an environment variable, type its key here once when the variable or the address changes: it proves that you know it.",
    )
    forget_key = forms.BooleanField(
        label="Forget the stored key",
        required=False,
        widget=widgets.UnfoldBooleanWidget(),
        help_text="From now on no key is sent to this address.",
    )

    class Meta:
        model = Provider
        fields = ("slug", "base_url", "default_model", "is_default", "key_variable", *TIMEOUTS)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if "key" not in self.fields or self.errors:
            return data
        wanted = Provider(pk=self.instance.pk, base_url=data["base_url"], key_variable=data["key_variable"])
        try:
            check_change(wanted, typed_key=data["key"], forget=data.get("forget_key", False))
        except ValidationError as error:
            self.add_error(None, error)
        if self.instance.pk and self.initial.get("is_default") and not data["is_default"]:
            self.add_error("is_default", "There is always one default. Make another provider the default; this one then stops being it.")
        return data

    def _get_validation_exclusions(self) -> set[str]:
        # The rule of one default is kept by save_model, which takes the mark from the other provider in the same transaction.
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc] # ModelForm has it; the stubs leave it out
        return exclusions | {"is_default"}

    def _post_clean(self) -> None:
        # Before the model's own checks, which want the key from one place only.
        if "key" in self.fields and not self.errors:
            data = self.cleaned_data
            self.instance.key_variable = data["key_variable"]
            apply_key(self.instance, typed_key=data["key"], forget=data.get("forget_key", False))
        super()._post_clean()  # type: ignore[misc] # ModelForm has it; the stubs leave it out


@admin.register(Provider)
class ProviderAdmin(ModelAdmin):
    form = ProviderForm
    list_display = ("provider", "base_url", "default_model", "key_source", "agents_using")
    list_display_links = ("provider",)
    search_fields = ("slug", "base_url")
    ordering = ("-is_default", "slug")
    actions = ("make_default",)
    change_form_before_template = "admin/agents/provider/before.html"

    def get_urls(self) -> list[URLPattern]:
        urls: list[URLPattern] = super().get_urls()
        # Async: it checks the person itself.
        return [path("<int:provider_id>/probe/", probe, name="agents_provider_probe"), *urls]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        found = Provider.objects.filter(pk=object_id).first() if object_id.isascii() and object_id.isdigit() else None
        context = {"breakers": _paused_at(found) if found else []}
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})
        return response

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        providers: QuerySet[Provider] = super().get_queryset(request).annotate(agents=Count("versions__agent", distinct=True))
        return providers

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Provider | None:
        found: Provider | None = super().get_object(request, object_id, from_field)
        if found is None or request.method != "POST":
            return found
        # One change of a provider at a time, from the check to the save (Django runs both in one transaction): otherwise a form
        # that was checked after a colleague's "forget the key" could write back the key it had read before, to a new address.
        Provider.objects.select_for_update().filter(pk=found.pk).first()
        locked: Provider | None = super().get_object(request, object_id, from_field)
        return locked

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        # A list that can be filtered by a column tells what the column holds, letter by letter.
        allowed: bool = super().lookup_allowed(lookup, value, request)
        return allowed and not lookup.startswith("encrypted_key")

    def get_fieldsets(self, request: HttpRequest, obj: Provider | None = None) -> list[tuple[str | None, dict[str, Any]]]:
        key: dict[str, Any] = {"fields": ["key_source"] if _is_kept(obj) else ["key_variable", "key"]}
        if obj and not _is_kept(obj) and _stored_key(obj):
            key["fields"].append("forget_key")
        if not self._may_write(request, obj):
            key["fields"] = ["key_source"]
        return [
            ("Where the models run", {"fields": ["slug", "base_url", "default_model", "is_default"]}),
            ("Key", {"fields": key["fields"], "description": "Keys are never shown, here or anywhere else."}),
            (
                "Patience",
                {"fields": list(TIMEOUTS), "description": "How long to wait before the next fallback is asked, or the caller is told."},
            ),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Provider | None = None) -> tuple[str, ...]:
        if _is_kept(obj):
            return ("slug", "base_url", "default_model", "is_default", "key_source")
        return ("key_source",) if not self._may_write(request, obj) else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if not self._may_write(request, obj) or _is_kept(obj):
            # Read-only pages have no key field at all, not even an empty one.
            names = {name: field for name, field in form.base_fields.items() if name not in {"key", "forget_key"}}
            form.base_fields = names
        return form

    def has_delete_permission(self, request: HttpRequest, obj: Provider | None = None) -> bool:
        allowed: bool = super().has_delete_permission(request, obj)
        return allowed and not (obj and (obj.is_default or _is_kept(obj)))

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        with transaction.atomic():
            if obj.is_default:
                _clear_default(except_id=obj.pk)
            super().save_model(request, obj, form, change)

    @admin.action(description="Make this the default provider", permissions=["change"])
    def make_default(self, request: HttpRequest, providers: QuerySet[Provider]) -> None:
        chosen = list(providers[:2])
        if len(chosen) != 1:
            messages.error(request, "Choose exactly one provider: there is one default.")
            return
        with transaction.atomic():
            _clear_default(except_id=chosen[0].pk)
            Provider.objects.filter(pk=chosen[0].pk).update(is_default=True)
        messages.success(request, f"{chosen[0].slug} is the default: agents that name no provider use it within a second.")

    @admin.display(description="provider", ordering="slug")
    def provider(self, provider: Provider) -> SafeString:
        return render_to_string("admin/agents/provider/name.html", {"provider": provider, "paused": _paused_at(provider)})

    @admin.display(description="key")
    def key_source(self, provider: Provider) -> SafeString:
        return render_to_string("admin/agents/provider/key.html", {"provider": provider, "state": _key_state(provider)})

    @admin.display(description="agents that name it")
    def agents_using(self, provider: Provider) -> int:
        count: int = provider.agents  # type: ignore[attr-defined] # annotated by get_queryset
        return count

    def _may_write(self, request: HttpRequest, obj: Provider | None) -> bool:
        return bool(self.has_change_permission(request, obj) if obj else self.has_add_permission(request))


def _is_kept(provider: Provider | None) -> bool:
    """Whether set-up keeps the row in step with the environment."""
    return bool(provider and (provider.from_environment or provider.is_demo))


def _paused_at(provider: Provider) -> list[Any]:
    """Return the open breakers of its models."""
    return [breaker for breaker in open_breakers() if breaker.provider == provider.slug]


def _stored_key(provider: Provider) -> str:
    return Provider.objects.filter(pk=provider.pk).values_list("encrypted_key", flat=True).first() or ""


def _key_state(provider: Provider) -> str:
    try:
        return "set" if key_of(provider) else "unset"
    except UnreadableKey:
        return "unreadable"


def _clear_default(*, except_id: int | None) -> None:
    Provider.objects.filter(is_default=True).exclude(pk=except_id or 0).update(is_default=False)
