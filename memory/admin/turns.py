"""Single turns in the admin, read-only."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html

from memory.models import Conversation, Turn, TurnState

from .pages import PEOPLE, may
from .reading import ReadOnlyAdmin, shown
from .recollections import recollections_of
from .traces import trace_of

STATE_LABELS: Final = {
    TurnState.RUNNING: "quiet",
    TurnState.DONE: "live",
    TurnState.CANCELLED: "draft",
    TurnState.INTERRUPTED: "off",
    TurnState.FAILED: "off",
}

# Of a UUIDv7, ten minutes.
_SOON: Final = 10 * 60_000 << 80


@admin.register(Turn)
class TurnAdmin(ReadOnlyAdmin):
    """Single turns: which version and model answered, how it ended, and how long it took."""

    list_display = ("started", "agent", "version", "state_label", "duration", "tokens", "model", "session")
    list_filter = ("state", "created_at")
    search_fields = ("=agent", "=request_id", "=conversation__session_id")
    search_help_text = "Search for a message id, a request id, a session or an agent's address name."
    ordering = ("-created_at",)
    fields = (
        "id", "session", "number", "state", "agent", "version", "provider", "model", "message", "reply", "finish_reason", "error_code",
        "prompt_tokens", "completion_tokens", "usage_estimated", "first_word", "metadata", "request_id", "started", "duration",
    )  # fmt: skip

    change_form_after_template = "admin/memory/turn_after.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may_view_memories = may(request, "view", PEOPLE)
        turn = self.get_object(request, object_id)
        context = {
            "may_view_memories": may_view_memories,
            "recollections": recollections_of(turn) if turn and may_view_memories else [],
            "trace": trace_of(turn) if turn else None,
        }
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})
        return response

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if self.has_view_permission(request) and (turn_id := find_turn(request.GET.get("q", ""))):
            return HttpResponseRedirect(reverse("admin:memory_turn_change", args=(turn_id,)))
        response: HttpResponse = super().changelist_view(request, extra_context)
        return response

    def get_queryset(self, request: HttpRequest) -> QuerySet[Turn]:
        turns: QuerySet[Turn] = (
            super()
            .get_queryset(request)
            .defer("sent", "trace")  # long, and for a turn's own page alone
            .prefetch_related(Prefetch("conversation", Conversation.objects.only("id", "session_id", "subject_id", "agent")))
        )
        return turns

    @admin.display(description="time (UTC)", ordering="created_at")
    def started(self, turn: Turn) -> str:
        return shown(turn.created_at)

    @admin.display(description="session")
    def session(self, turn: Turn) -> str:
        return format_html(
            '<a class="ca-id" href="{}">{}</a>',
            reverse("admin:memory_conversation_change", args=(turn.conversation_id,)),
            turn.conversation.session_id,
        )

    @admin.display(description="state", ordering="state")
    def state_label(self, turn: Turn) -> str:
        # The word alone: what it means stands on the turn's page.
        return format_html('<span class="ca-label ca-label-{}">{}</span>', STATE_LABELS[TurnState(turn.state)], turn.state)

    @admin.display(description="tokens in + out")
    def tokens(self, turn: Turn) -> str:
        counts = (turn.prompt_tokens, turn.completion_tokens)
        return " + ".join("?" if count is None else str(count) for count in counts) if counts != (None, None) else "not known"

    @admin.display(description="number in its conversation")
    def number(self, turn: Turn) -> int:
        return turn.seq

    @admin.display(description="first word after (ms)", empty_value="not known")
    def first_word(self, turn: Turn) -> int | None:
        return turn.first_token_ms

    @admin.display(description="took")
    def duration(self, turn: Turn) -> str:
        return f"{(turn.finished_at - turn.created_at).total_seconds():.1f} s" if turn.finished_at else "not yet"


def find_turn(text: str) -> UUID | None:
    """Return the turn whose id, the API's message_id, is `text`, or the one that a request of that id asked for."""
    try:
        wanted = UUID(text.strip())
    except ValueError:
        return None
    # A request has its id, which tells the time unless its sender chose it, moments before its turn: that finds it without a search.
    soon = UUID(int=min(wanted.int + _SOON, (1 << 128) - 1))
    turns = Turn.objects.filter(Q(pk=wanted) | Q(pk__gt=wanted, pk__lt=soon, request_id=text.strip()))
    return turns.order_by("pk").values_list("pk", flat=True).first()
