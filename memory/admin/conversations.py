"""Conversations in the admin, read-only: for operators who look into what happened.

People appear by the opaque number of their `Subject` only. Nothing here can be added, changed or deleted: erasing a person
has its own, complete way (`erasing`).
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html

from memory.models import Conversation, Summary, Turn

from .pages import PEOPLE, may
from .reading import ReadOnlyAdmin, shown
from .recollections import recollections_of_many


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
        return shown(conversation.last_turn_at)

    @admin.display(description="began (UTC)", ordering="created_at")
    def started(self, conversation: Conversation) -> str:
        return shown(conversation.created_at)

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
        turns = Turn.objects.select_related("conversation").defer("sent", "trace").order_by("-seq")
        newest = list(turns.filter(conversation_id=object_id)[:200]) if is_id else []
        may_view_memories = may(request, "view", PEOPLE)
        recalled = recollections_of_many(newest) if may_view_memories else {}
        context = {
            "turns": [(turn, recalled.get(turn.pk, [])) for turn in reversed(newest)],
            "summaries": Summary.objects.filter(conversation_id=object_id).order_by("-number")[:50] if is_id else [],
            "may_view_memories": may_view_memories,
        }
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})
        return response
