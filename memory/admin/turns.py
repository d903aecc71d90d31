"""Single turns in the admin, read-only."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from memory.models import Conversation, Turn, TurnState

from .pages import PEOPLE, may
from .reading import ReadOnlyAdmin, shown
from .recollections import recollections_of

STATE_LABELS: Final = {
    TurnState.RUNNING: "quiet",
    TurnState.DONE: "live",
    TurnState.CANCELLED: "draft",
    TurnState.INTERRUPTED: "off",
    TurnState.FAILED: "off",
}


@admin.register(Turn)
class TurnAdmin(ReadOnlyAdmin):
    """Single turns: which version and model answered, how it ended, and how long it took."""

    list_display = ("started", "agent", "version", "state_label", "duration", "tokens", "model", "session")
    list_filter = ("state", "created_at")
    search_fields = ("=agent", "=request_id", "=conversation__session_id")
    search_help_text = "Search for an agent's address name, a session or a request id."
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
        turn = self.get_object(request, object_id) if may_view_memories else None
        context = {"may_view_memories": may_view_memories, "recollections": recollections_of(turn) if turn else []}
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})
        return response

    def get_queryset(self, request: HttpRequest) -> QuerySet[Turn]:
        turns: QuerySet[Turn] = (
            super()
            .get_queryset(request)
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
