"""API keys and their owners in the admin. A key's secret is on one page, once, and nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from rest_framework_api_key.models import APIKey as LibraryKey
from unfold import widgets
from unfold.admin import ModelAdmin

from agents.access.issuing import HOLDS_WITHIN_S, NotRotatable, revoke_key, rotate_key
from agents.models import Agent, ApiKey, KeyOwner, Scope
from observability.api import budgets_of_key

from .pages import render_page
from .permissions import may_add_budgets, may_view_budgets

if TYPE_CHECKING:
    KeyModelForm = forms.ModelForm[ApiKey]
else:
    KeyModelForm = forms.ModelForm

# The library registers a table of its own, which this project leaves empty.
admin.site.unregister(LibraryKey)

OVERLAPS: Final = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
_WORDS: Final = {"1h": "for one more hour", "1d": "for one more day", "7d": "for 7 more days", "30d": "for 30 more days"}


class KeyForm(KeyModelForm):
    """What a key is for and what it opens."""

    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        required=False,
        initial=[Scope.CHAT],
        widget=widgets.UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="What the key may be used for; none: nothing.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", "owner", "scopes", "all_agents", "agents", "expiry_date")
        labels = {"expiry_date": "Expires (UTC)"}
        help_texts = {"expiry_date": "From then on the key is refused. Empty: it never expires."}

    def clean_expiry_date(self) -> Any:
        at = self.cleaned_data["expiry_date"]
        if at is not None and at != self.instance.expiry_date and at <= timezone.now():
            raise ValidationError("Choose a time to come. To end a key now, revoke it.")
        return at


class RotationForm(forms.Form):
    """How long the old key goes on."""

    overlap = forms.ChoiceField(
        label="The old key goes on",
        choices=list(_WORDS.items()),
        initial="1d",
        widget=widgets.UnfoldAdminSelectWidget(),
        help_text="Time to give the new key to everything that uses the old one.",
    )


@admin.register(KeyOwner)
class KeyOwnerAdmin(ModelAdmin):
    """Who uses keys. Their users and sessions live in one namespace, whichever of their keys they use."""

    list_display = ("name", "slug", "key_count", "created_at")
    search_fields = ("name", "slug")
    fields = ("name", "slug")
    change_form_before_template = "admin/agents/apikey/safely.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[KeyOwner]:
        owners: QuerySet[KeyOwner] = super().get_queryset(request).annotate(key_count=Count("keys"))
        return owners

    @admin.display(description="keys", ordering="key_count")
    def key_count(self, owner: KeyOwner) -> int:
        count: int = owner.key_count  # type: ignore[attr-defined] # annotated by get_queryset
        return count


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    form = KeyForm
    list_display = ("key", "owner", "state", "opens", "last_used", "expires")
    list_display_links = ("key",)
    list_filter = ("owner", "revoked")
    search_fields = ("name", "prefix", "owner__name", "owner__slug")
    list_select_related = ("owner",)
    change_form_before_template = "admin/agents/apikey/before.html"

    def get_urls(self) -> list[URLPattern]:
        urls: list[URLPattern] = super().get_urls()
        own = [
            path(f"<int:key_id>/{name}/", self.admin_site.admin_view(view), name=f"agents_apikey_{name}")
            for name, view in (("rotate", self.rotate), ("revoke", self.revoke))
        ]
        return [*own, *urls]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        keys: QuerySet[ApiKey] = super().get_queryset(request).prefetch_related("agents")
        return keys

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        # A list that can be filtered by a column tells what the column holds, letter by letter.
        allowed: bool = super().lookup_allowed(lookup, value, request)
        return allowed and "hashed_key" not in lookup

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return KeyForm.Meta.fields if obj.revoked else ("owner",)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["widget"] = widgets.UnfoldAdminCheckboxSelectMultipleWidget()
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if field:
            field.help_text = db_field.help_text  # without Django's advice on Ctrl and lists
            field.label_from_instance = lambda agent: f"{agent.name} ({agent.slug})"  # names may be alike
        return field

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        key: ApiKey | None = self.get_object(request, object_id)
        own: dict[str, Any] = {}
        if key is not None and may_view_budgets(request):
            own = {"may_view_budgets": True, "budgets": budgets_of_key(key.prefix), "new_budget_url": _new_budget_url(request, key)}
        response: HttpResponse = super().change_view(request, object_id, form_url, {**own, **(extra_context or {})})
        return response

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if not change:
            obj.author = cast("User", request.user)
            obj.secret = ApiKey.objects.assign_key(obj)  # type: ignore[attr-defined] # for response_add, which shows it once
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        return _show_once(request, obj, secret=obj.secret)  # type: ignore[attr-defined] # set by save_model

    def rotate(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Ask how long the old key goes on; a POST makes the successor and shows its secret."""
        key = self._key_to_change(request, key_id)
        form = RotationForm(request.POST or None)
        if request.method != "POST" or not form.is_valid():
            return render_page(request, "admin/agents/apikey/rotate.html", title=f"Rotate {key}", key=key, form=form, opts=ApiKey._meta)
        try:
            issued = rotate_key(key, overlap=OVERLAPS[form.cleaned_data["overlap"]], author=cast("User", request.user))
        except NotRotatable as refusal:
            messages.error(request, refusal.detail)
            return redirect(_page_of(key))
        self.log_change(request, key, f"Rotated: {issued.key.prefix} takes its place.")
        key.refresh_from_db()
        return _show_once(request, issued.key, secret=issued.secret, old=key)

    def revoke(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Ask whether it is meant; a POST ends the key for good."""
        key = self._key_to_change(request, key_id)
        if request.method != "POST":
            return render_page(request, "admin/agents/apikey/revoke.html", title=f"Revoke {key}", key=key, opts=ApiKey._meta)
        revoke_key(key)
        self.log_change(request, key, "Revoked.")
        messages.success(request, f"{key} is revoked: it and its tokens are refused everywhere within {HOLDS_WITHIN_S} seconds.")
        return redirect(_page_of(key))

    def _key_to_change(self, request: HttpRequest, key_id: int) -> ApiKey:
        key: ApiKey | None = ApiKey.objects.select_related("owner").filter(pk=key_id).first()
        if not self.has_change_permission(request, key):
            raise PermissionDenied
        if key is None:
            raise Http404
        return key

    @admin.display(description="key", ordering="name")
    def key(self, key: ApiKey) -> SafeString:
        return render_to_string("admin/agents/apikey/name.html", {"key": key})

    @admin.display(description="state", ordering="revoked")
    def state(self, key: ApiKey) -> SafeString:
        return render_to_string("admin/agents/apikey/state.html", {"key": key, "is_usable": key.is_usable()})

    @admin.display(description="opens")
    def opens(self, key: ApiKey) -> SafeString:
        return render_to_string("admin/agents/apikey/opens.html", {"key": key})

    @admin.display(description="last used (UTC)", ordering="last_used_at")
    def last_used(self, key: ApiKey) -> str:
        return _moment(key.last_used_at)

    @admin.display(description="expires (UTC)", ordering="expiry_date")
    def expires(self, key: ApiKey) -> str:
        return _moment(key.expiry_date)


def _moment(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%d %b %Y, %H:%M}" if at else "never"


def _page_of(key: ApiKey) -> str:
    return reverse("admin:agents_apikey_change", args=(key.pk,))


def _new_budget_url(request: HttpRequest, key: ApiKey) -> str:
    """Return where a budget for `key` is made, filled in but for the sum; "" to those who may make none."""
    if key.revoked or not may_add_budgets(request):
        return ""
    prefilled = {"name": f"{key.owner.name}: {key.name}"[:100], "scope": "key", "key": key.prefix, "period": "month"}
    return f"{reverse('admin:observability_budget_add')}?{urlencode(prefilled)}"


def _show_once(request: HttpRequest, key: ApiKey, *, secret: str, old: ApiKey | None = None) -> HttpResponse:
    response = render_page(
        request,
        "admin/agents/apikey/secret.html",
        title=f"The new key of {key.owner}",
        key=key,
        old=old,
        secret=secret,
        endpoint=_example_address(request, key),
        new_budget_url=_new_budget_url(request, key),
        opts=ApiKey._meta,
    )
    response["Cache-Control"] = "no-store"
    return response


def _example_address(request: HttpRequest, key: ApiKey) -> str:
    """Return the chat address of an agent that the key may use, "" where it may chat with none."""
    if Scope.CHAT not in key.scopes:
        return ""
    agents = Agent.objects.all() if key.all_agents else key.agents.all()
    agent = agents.filter(is_active=True, live_version__isnull=False).first()
    return request.build_absolute_uri(f"/api/chat/{agent.slug}") if agent else ""
