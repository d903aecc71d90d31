"""Erasing a person for good, and the receipts that remain."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect

from memory import erasing
from memory.browsing import memory_counts, owners_of_subject
from memory.elsewhere import PENDING
from memory.models import Conversation, Erasure, Subject
from memory.naming import name_person

from .forms import ConfirmForm
from .pages import author_of, for_person, wait_for
from .person import render_person_page
from .reading import ReadOnlyAdmin, shown

WHAT: Final = {
    "conversations": "conversations",
    "turns": "turns",
    "summaries": "summaries",
    "memories": "memories",
    "vectors": "vectors of sentences",
    "words": "words by which memories were found",
    "recalled": "notes of what was recalled",
}
"""What receipts count, in words; other stores are called what they call themselves."""


@for_person("delete")
def erase(request: HttpRequest, subject: Subject) -> HttpResponseBase:
    """Erase a person once their name was typed, and show the receipt."""
    name = name_person(subject)
    form = ConfirmForm(request.POST or None, expected=name.title)
    if request.method == "POST" and form.is_valid():
        receipt = wait_for(erasing.erase, subject.pk, actor=f"admin:{author_of(request)}"[:100])
        messages.success(request, f"{name.title} is erased. This receipt says what was deleted, and nothing of what it was.")
        return redirect("admin:memory_erasure_change", receipt.id)
    return render_person_page(
        request,
        "admin/memory/erase.html",
        subject,
        tab="",
        status=422 if form.errors else 200,
        form=form,
        memory_count=sum(memory_counts([owner.pk for owner in owners_of_subject(subject.pk)]).values()),
        conversation_count=Conversation.objects.filter(subject=subject).count(),
    )


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin):
    """Receipts of erasures, the newest first."""

    list_display = ("erased", "by", "memories", "turns", "state", "receipt")
    search_fields = ("=id", "actor")
    search_help_text = "Search for a receipt's number, or who erased."
    ordering = ("-erased_at",)
    change_list_template = "admin/memory/erasures_list.html"
    change_form_template = "admin/memory/receipt.html"

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        context = {"title": "Erasures", "nothing": not Erasure.objects.exists(), **(extra_context or {})}
        response: HttpResponseBase = super().changelist_view(request, context)
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        receipt = self.get_object(request, object_id)
        counts = [(WHAT.get(name, name), count) for name, count in receipt.counts.items()] if receipt else []
        response: HttpResponseBase = super().change_view(
            request, object_id, form_url, {"title": "Receipt of an erasure", "counts": counts, **(extra_context or {})}
        )
        return response

    @admin.display(description="erased (UTC)", ordering="erased_at")
    def erased(self, receipt: Erasure) -> str:
        return shown(receipt.erased_at)

    @admin.display(description="by", ordering="actor")
    def by(self, receipt: Erasure) -> str:
        return receipt.actor

    @admin.display(description="memories")
    def memories(self, receipt: Erasure) -> int:
        return int(receipt.counts.get("memories", 0))

    @admin.display(description="turns")
    def turns(self, receipt: Erasure) -> int:
        return int(receipt.counts.get("turns", 0))

    @admin.display(description="state")
    def state(self, receipt: Erasure) -> str:
        pending = [WHAT.get(name, name) for name, count in receipt.counts.items() if count == PENDING]
        return f"waits for {', '.join(pending)}" if pending else "complete"

    @admin.display(description="receipt")
    def receipt(self, receipt: Erasure) -> str:
        return str(receipt.pk)
