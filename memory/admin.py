"""Conversations in the admin, read-only: for operators who look into what happened.

People appear by the opaque number of their `Subject` only. Nothing here can be added, changed or deleted: erasing a person
has its own, complete way.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import ModelAdmin

from memory.models import Conversation, Turn, TurnState

STATE_LABELS = {
    TurnState.RUNNING: "quiet",
    TurnState.DONE: "live",
    TurnState.CANCELLED: "draft",
    TurnState.INTERRUPTED: "off",
    TurnState.FAILED: "off",
}


class ReadOnlyAdmin(ModelAdmin):
    """A list and a page to look at, for those with the view permission; no form of it can be sent."""

    actions = None
    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    """Conversations, the one with the newest turn first; each opens as a transcript."""

    list_display = ("last_turn", "agent", "turn_count", "person", "started", "session")
    list_filter = ("last_turn_at",)
    search_fields = ("session_id", "agent")
    search_help_text = "Search for an agent's address name or a session."
    ordering = ("-last_turn_at",)
    change_form_template = "admin/memory/transcript.html"

    @admin.display(description="last turn (UTC)", ordering="last_turn_at")
    def last_turn(self, conversation: Conversation) -> str:
        return _shown(conversation.last_turn_at)

    @admin.display(description="began (UTC)", ordering="created_at")
    def started(self, conversation: Conversation) -> str:
        return _shown(conversation.created_at)

    @admin.display(description="session", ordering="session_id")
    def session(self, conversation: Conversation) -> str:
        return format_html('<span class="ca-id">{}</span>', conversation.session_id)

    @admin.display(description="person", ordering="subject_id")
    def person(self, conversation: Conversation) -> str:
        return f"#{conversation.subject_id}"

    @admin.display(description="turns", ordering="last_seq")
    def turn_count(self, conversation: Conversation) -> int:
        return conversation.last_seq

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        is_id = object_id.isascii() and object_id.isdigit()
        newest = Turn.objects.filter(conversation_id=object_id).order_by("-seq")[:200] if is_id else []
        response: HttpResponse = super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "turns": sorted(newest, key=lambda turn: turn.seq)}
        )
        return response


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

    def get_queryset(self, request: HttpRequest) -> QuerySet[Turn]:
        turns: QuerySet[Turn] = (
            super().get_queryset(request).prefetch_related(Prefetch("conversation", Conversation.objects.only("id", "session_id")))
        )
        return turns

    @admin.display(description="time (UTC)", ordering="created_at")
    def started(self, turn: Turn) -> str:
        return _shown(turn.created_at)

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


def _shown(moment: datetime) -> str:
    return f"{moment:%d %b %Y, %H:%M:%S}"
