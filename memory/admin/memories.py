"""The list of what is remembered: of a person with one agent, of an agent for everybody, or in a shared collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from memory.browsing import MemoryCard, list_memories
from memory.isolation import acting_for
from memory.models import MemoryOwner, Origin, OwnerKind, Passage, Speaker, Turn
from observability.errors import BadRequest

from .pages import for_owner, may, render_page, rights_on
from .person import render_person_page

PAGE: Final = 30
KINDS: Final = (
    ("", "everything", ()),
    ("said", "said in conversations", (Origin.TURN,)),
    ("facts", "facts", (Origin.FACT, Origin.MODEL)),
    ("notes", "written by hand", (Origin.ADDED,)),
)
KIND_OF: Final = {Origin.TURN: "said", Origin.FACT: "fact", Origin.MODEL: "fact read by a model", Origin.ADDED: "written by hand"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something was said: a turn of a conversation, by the address of its place in the transcript."""

    url: str
    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A memory in the list. `replaced_by` and `read_from` are texts of other memories, "" where there are none or they say the same."""

    card: MemoryCard
    kind: str
    about: str
    speaker: str
    place: Place | None
    replaced_by: str
    read_from: str


@for_owner("view")
def memories(request: HttpRequest, owner: MemoryOwner) -> HttpResponseBase:
    """Show the memories of `owner`, the newest first, or those that match a search."""
    search = request.GET.get("q", "").strip()[:200]
    kind = request.GET.get("kind", "")
    history = "history" in request.GET
    origins = next((origins for name, _, origins in KINDS if name == kind), ())
    try:
        page = list_memories(
            owner.pk, search=search, history=history, origins=origins, before=request.GET.get("before") or None, limit=PAGE
        )
    except BadRequest:
        # An address that was cut short: from the beginning.
        return redirect("admin:memory_memoryowner_change", owner.pk)
    return render_owner_page(
        request,
        "admin/memory/memories.html",
        owner,
        rows=rows_of(owner, page.items),
        search=search,
        kind=kind,
        kinds=[(name, label) for name, label, _ in KINDS],
        history=history,
        next_url=_address(q=search, kind=kind, history=history, before=page.next) if page.next else "",
        first_url=_address(q=search, kind=kind, history=history) if request.GET.get("before") else "",
        is_filtered=bool(search or kind),
    )


def render_owner_page(
    request: HttpRequest, template: str, owner: MemoryOwner, *, status: int = 200, is_list: bool = True, **context: Any
) -> HttpResponse:
    """Render a page about the memories of `owner` in the frame that fits: the person's, the agent's or the collection's."""
    shared = {
        "owner": owner,
        "is_person": owner.kind == OwnerKind.PERSON,
        "may_change": may(request, "change", rights_on(owner)),
        "may_delete": owner.kind == OwnerKind.SHARED and may(request, "delete", rights_on(owner)),
        "may_view_conversations": may(request, "view", "conversation"),
        "back_url": reverse("admin:memory_memoryowner_change", args=(owner.pk,)),
        "is_list": is_list,
    }
    if owner.subject is not None:
        return render_person_page(request, template, owner.subject, status=status, tab=owner.agent, **{**shared, **context})
    title = owner.collection if owner.kind == OwnerKind.SHARED else f"What {owner.agent} knows for everybody"
    return render_page(request, template, title=title, status=status, opts=MemoryOwner._meta, **{**shared, **context})


def rows_of(owner: MemoryOwner, cards: Sequence[MemoryCard]) -> list[Row]:
    """Return `cards` with what is shown of other rows beside them. What was said is left out where a fact says it word by word."""
    told = {(card.source, card.text) for card in cards if card.source}
    places = _places({card.turn_id for card in cards if card.turn_id})
    others = {id for card in cards for id in (card.superseded_by, card.source) if id}
    with acting_for([owner.pk]):
        texts = dict(Passage.objects.filter(owner=owner, pk__in=others).values_list("id", "text"))
    return [
        Row(
            card=card,
            kind=KIND_OF[Origin(card.origin)],
            about=card.attribute.partition(":")[0],
            speaker="" if card.speaker == Speaker.NOTE else Speaker(card.speaker).label,
            place=places.get(card.turn_id) if card.turn_id else None,
            replaced_by=texts.get(card.superseded_by or 0, ""),
            read_from=texts.get(card.source or 0, "") if texts.get(card.source or 0) != card.text else "",
        )
        for card in cards
        if (card.id, card.text) not in told
    ]


def card_of(owner: MemoryOwner, passage_id: int) -> Passage:
    """Return one of the memories of `owner`.

    Raises:
        Http404: it has none of that id.
    """
    with acting_for([owner.pk]):
        passage = Passage.objects.filter(owner=owner, pk=passage_id).first()
    if passage is None:
        raise Http404
    return passage


def back_to_list(request: HttpRequest, owner: MemoryOwner, said: str) -> HttpResponse:
    """Say what was done, on the list of the memories of `owner`."""
    messages.success(request, said)
    return redirect("admin:memory_memoryowner_change", owner.pk)


def _places(turn_ids: set[UUID]) -> dict[UUID, Place]:
    turns = Turn.objects.filter(pk__in=turn_ids).values_list("id", "conversation_id", "seq", "conversation__session_id")
    return {
        id: Place(url=f"{reverse('admin:memory_conversation_change', args=(conversation_id,))}#turn-{seq}", session_id=session_id)
        for id, conversation_id, seq, session_id in turns
    }


def _address(*, history: bool, **parts: str) -> str:
    return "?" + urlencode({name: value for name, value in (*parts.items(), ("history", "1" if history else "")) if value})
