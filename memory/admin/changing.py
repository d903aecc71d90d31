"""Adding, correcting, pinning and forgetting memories, each by a small form of its own."""

from __future__ import annotations

from collections.abc import Sequence

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from memory import curating, forgetting
from memory.browsing import memory_counts
from memory.models import MemoryOwner, OwnerKind
from memory.parts import parts
from memory.words import words
from observability.errors import ChatbotError

from .forms import MemoryForm, TextForm
from .memories import back_to_list, card_of, render_owner_page
from .pages import author_of, for_owner, wait_for


@for_owner("change")
def add(request: HttpRequest, owner: MemoryOwner) -> HttpResponseBase:
    """Add a memory of a person, or a text of any length to what is known for everybody."""
    make = MemoryForm if owner.kind == OwnerKind.PERSON else TextForm
    form = make(request.POST or None)
    if request.method == "POST" and form.is_valid():
        texts = [form.cleaned_data["text"]] if owner.kind == OwnerKind.PERSON else _passages(form.cleaned_data["text"])
        try:
            wait_for(_add_all, owner.pk, texts, author=author_of(request))
        except ChatbotError as error:
            refuse(form, error)
        else:
            said = "Remembered." if len(texts) == 1 else f"Remembered, in {len(texts)} passages."
            return back_to_list(request, owner, f"{said} It is recalled from now on.")
    return render_owner_page(
        request, "admin/memory/add.html", owner, form=form, status=422 if form.errors else 200, is_list=False, heading="Add a memory"
    )


@for_owner("change")
def correct(request: HttpRequest, owner: MemoryOwner, passage_id: int) -> HttpResponseBase:
    """Put another text in a memory's place, the old one beside it."""
    passage = card_of(owner, passage_id)
    form = MemoryForm(request.POST or None, initial={"text": passage.text})
    form.fields["text"].label = "What is right"
    form.fields["text"].help_text = ""
    if request.method == "POST" and form.is_valid():
        try:
            wait_for(curating.correct, owner.pk, passage_id, text=form.cleaned_data["text"], author=author_of(request))
        except ChatbotError as error:
            refuse(form, error)
        else:
            return back_to_list(request, owner, "Corrected. What it was is kept as history and never recalled.")
    return render_owner_page(
        request, "admin/memory/correct.html", owner, form=form, passage=passage, status=422 if form.errors else 200, is_list=False
    )


@for_owner("change")
@require_POST
def pin(request: HttpRequest, owner: MemoryOwner, passage_id: int) -> HttpResponseBase:
    """Keep a memory whatever the caps and ages, or no longer."""
    pinned = request.POST.get("pinned") == "1"
    try:
        curating.pin(owner.pk, passage_id, pinned=pinned)
    except ChatbotError as error:
        messages.error(request, error.detail)
        return redirect("admin:memory_memoryowner_change", owner.pk)
    said = "Pinned: no cap and no age limit takes it away." if pinned else "No longer pinned."
    return back_to_list(request, owner, said)


@for_owner("change")
def forget(request: HttpRequest, owner: MemoryOwner, passage_id: int) -> HttpResponseBase:
    """Delete one memory for good, once that was confirmed."""
    passage = card_of(owner, passage_id)
    if request.method == "POST":
        try:
            gone = curating.forget(owner.pk, passage_id)
        except ChatbotError as error:
            messages.error(request, error.detail)
            return redirect("admin:memory_memoryowner_change", owner.pk)
        with_it = "" if gone == 1 else f", and {gone - 1} that it replaced or was read from"
        return back_to_list(request, owner, f"Forgotten for good{with_it}.")
    return render_owner_page(request, "admin/memory/forget.html", owner, passage=passage, is_list=False)


@for_owner("change")
def forget_all(request: HttpRequest, owner: MemoryOwner) -> HttpResponseBase:
    """Delete every memory of an owner for good, once that was confirmed. The conversations stay."""
    if request.method == "POST":
        gone = wait_for(forgetting.forget_all, owner.pk)
        return back_to_list(request, owner, f"Forgotten for good: {gone} memor{'y' if gone == 1 else 'ies'}.")
    return render_owner_page(
        request, "admin/memory/forget_all.html", owner, memory_count=memory_counts([owner.pk])[owner.pk], is_list=False
    )


def refuse(form: forms.Form, error: ChatbotError) -> None:
    """Say in `form` why nothing was stored."""
    for name, texts in error.fields.items():
        for text in texts:
            form.add_error(name if name in form.fields else None, text)
    if not error.fields:
        form.add_error(None, error.detail)


def _passages(text: str) -> list[str]:
    """Return a text in passages of 100 to 200 tokens, without those that have no words."""
    # Lines of dashes and the like have few tokens for their length.
    pieces = [part[start : start + curating.MAX_CHARS] for part in parts(text) for start in range(0, len(part), curating.MAX_CHARS)]
    return [piece.strip() for piece in pieces if words(piece)] or [text]


async def _add_all(owner_id: int, texts: Sequence[str], *, author: str) -> None:
    """Add `texts` one after another. Broken off, the same again adds what is missing and nothing twice."""
    for text in texts:
        await curating.add(owner_id, text=text, author=author)
