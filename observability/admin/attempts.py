"""The ledger: every call of a model and what it cost, the newest first. Nothing of what was said is in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from observability.models import Attempt, AttemptOutcome
from observability.money import usd
from observability.naming import agent_choices, key_choices

from .figures import per_million, with_current
from .reading import NewestPages, ReadOnlyAdmin

_LABELS: Final = {
    AttemptOutcome.DONE: "live",
    AttemptOutcome.CACHED: "live",
    AttemptOutcome.RUNNING: "draft",
    AttemptOutcome.CANCELLED: "quiet",
}


class WhenFilter(admin.SimpleListFilter):
    """Ids tell the time (UUIDv7), and their index is there already."""

    title = "when"
    parameter_name = "within"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "the last hour"), ("24", "the last 24 hours"), ("168", "the last 7 days"), ("720", "the last 30 days")]

    def queryset(self, request: HttpRequest, attempts: QuerySet[Attempt]) -> QuerySet[Attempt]:
        if (hours := self.value()) not in {value for value, _ in self.lookups(request, None)}:
            return attempts
        since = datetime.now(UTC) - timedelta(hours=int(hours or 0))
        return attempts.filter(id__gte=UUID(int=int(since.timestamp() * 1000) << 80))


class _ChoiceFilter(admin.SimpleListFilter):
    """Filters by a column whose values are registered, instead of asking millions of rows which there are."""

    def queryset(self, request: HttpRequest, attempts: QuerySet[Attempt]) -> QuerySet[Attempt]:
        return attempts.filter(**{str(self.parameter_name): self.value()}) if self.value() else attempts

    def has_output(self) -> bool:
        return bool(self.lookup_choices)


class AgentFilter(_ChoiceFilter):
    title = "agent"
    parameter_name = "agent"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return with_current(agent_choices(), request.GET.get("agent", ""), empty="")[1:]


class KeyFilter(_ChoiceFilter):
    title = "API key"
    parameter_name = "key"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return with_current(key_choices(), request.GET.get("key", ""), empty="")[1:]


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    list_display = ("started", "state", "kind", "who_answered", "called", "tokens", "cost", "took")
    list_filter = (WhenFilter, "kind", "outcome", AgentFilter, KeyFilter)
    paginator = NewestPages
    list_per_page = 50
    ordering = ("-id",)
    change_list_template = "admin/observability/ledger.html"
    fieldsets = (
        ("The call", {"fields": ("state", "kind", "provider", "model", "started", "took", "first_token_ms", "error_code")}),
        ("What it cost", {"fields": ("cost", "tokens", "worst", "prices", "saved", "left_out")}),
        ("For whom", {"fields": ("agent", "version", "key", "person", "conversation_id", "turn", "number", "request_id")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return tuple(name for _, own in self.fieldsets for name in own["fields"])

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist, names = super().get_changelist_instance(request), dict(key_choices())
        changelist.result_list = list(changelist.result_list)
        for attempt in changelist.result_list:
            attempt.key_name = names.get(attempt.key, attempt.key) or "no key"
        return changelist

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        return self.ordering

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = {"title": "Ledger", "nothing": not Attempt.objects.exists()}
        response: HttpResponse = super().changelist_view(request, {**own, **(extra_context or {})})
        return response

    @admin.display(description="began (UTC)")
    def started(self, attempt: Attempt) -> str:
        return f"{attempt.started_at:%d %b %Y, %H:%M:%S}"

    @admin.display(description="ended")
    def state(self, attempt: Attempt) -> SafeString:
        label = _LABELS.get(AttemptOutcome(attempt.outcome), "off")
        return format_html('<span class="ca-label ca-label-{}">{}</span>', label, attempt.get_outcome_display().partition(":")[0])

    @admin.display(description="agent and key")
    def who_answered(self, attempt: Attempt) -> SafeString:
        key: str = attempt.key_name  # type: ignore[attr-defined] # set by get_changelist_instance
        return format_html(
            '<span class="ca-cell"><span>{} v{}</span><span class="ca-help">{}</span></span>', attempt.agent, attempt.version, key
        )

    @admin.display(description="model")
    def called(self, attempt: Attempt) -> SafeString:
        return format_html('<span class="ca-cell"><span>{}</span><span class="ca-help">{}</span></span>', attempt.model, attempt.provider)

    @admin.display(description="tokens in → out")
    def tokens(self, attempt: Attempt) -> str:
        if attempt.prompt_tokens is None:
            return "none"
        cached = f" ({attempt.cached_tokens:,} cached)" if attempt.cached_tokens else ""
        estimated = ", estimated" if attempt.is_estimated else ""
        return f"{attempt.prompt_tokens:,}{cached} → {attempt.completion_tokens or 0:,}{estimated}"

    @admin.display(description="cost")
    def cost(self, attempt: Attempt) -> str:
        if attempt.outcome == AttemptOutcome.RUNNING:
            return "not yet"
        if attempt.cost_usd is None:
            return "unknown price" if attempt.prompt_tokens else "nothing used"
        return usd(attempt.cost_usd)

    @admin.display(description="took")
    def took(self, attempt: Attempt) -> str:
        return "" if attempt.latency_ms is None else f"{attempt.latency_ms / 1000:.2f} s"

    @admin.display(description="at most it could use")
    def worst(self, attempt: Attempt) -> str:
        return f"{attempt.worst_prompt_tokens:,} → {attempt.worst_completion_tokens:,} tokens"

    @admin.display(description="prices then, USD per million tokens")
    def prices(self, attempt: Attempt) -> str:
        if attempt.input_usd is None or attempt.output_usd is None:
            return "unknown"
        cached = "" if attempt.cached_input_usd is None else f", cached input {per_million(attempt.cached_input_usd)}"
        return f"input {per_million(attempt.input_usd)}{cached}, output {per_million(attempt.output_usd)}"

    @admin.display(description="saved")
    def saved(self, attempt: Attempt) -> str:
        by = f", by {attempt.get_saved_by_display()}" if attempt.saved_by else ""
        return f"{usd(attempt.saved_usd)}{by}"

    @admin.display(description="left out of the conversation so far")
    def left_out(self, attempt: Attempt) -> str:
        return f"about {attempt.trimmed_tokens:,} tokens" if attempt.trimmed_tokens else "nothing"

    @admin.display(description="turn", empty_value="none")
    def turn(self, attempt: Attempt) -> SafeString | None:
        if attempt.turn_id is None:
            return None
        return format_html(
            '<a class="ca-id" href="{}">{}</a>', reverse("admin:memory_turn_change", args=(attempt.turn_id,)), attempt.turn_id
        )

    @admin.display(description="person")
    def person(self, attempt: Attempt) -> str:
        return f"#{attempt.subject_id}" if attempt.subject_id else "none"
