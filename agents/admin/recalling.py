"""An agent's memory: what it knows for everybody, and *Try recall*, which shows what a question would recall, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asgiref.sync import async_to_sync
from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_safe
from unfold import widgets

from agents.chat.memories import try_recall
from agents.models import Agent, AgentVersion
from agents.versions.live import Answering, snapshot_of
from memory.api import (
    MemoryOwner,
    Outcome,
    PersonName,
    Ranked,
    Reason,
    Recalled,
    agent_owner,
    draw_reasons,
    find_person,
    knowledge_of,
    name_owner,
)

from .pages import for_viewers, render_agent_page, version_to_edit
from .permissions import may_change_knowledge, may_view_knowledge, may_view_memories

MOST_CHARS: Final = 2000
TRIES: Final = 3
"""How often a question is tried that takes too long: the first ones after a start often do."""
PAGES: Final = frozenset({"memory", "recall"})
LEFT_OUT: Final = {
    "below threshold": "Its score is below the version's threshold.",
    "the question itself": "It is the question, asked before in the same words.",
    "duplicate": "Another one says the same, and stands for both.",
    "over limit": "The version's number of memories is reached.",
    "over budget": "It does not fit into what is left of the token budget.",
}
"""Why something that was considered is not recalled, in words."""


class QuestionForm(forms.Form):
    """What somebody might ask the agent."""

    question = forms.CharField(
        label="What somebody says to the agent",
        max_length=MOST_CHARS,
        widget=widgets.UnfoldAdminTextInputWidget({"autocomplete": "off"}),
        help_text="Nothing is stored, and no model is asked: it shows what would be sent along.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A memory that is recalled, or was considered. `left_out` says why it is not recalled."""

    memory: Ranked
    whose: str
    reasons: list[Reason]
    url: str
    left_out: str = ""


@require_safe
@for_viewers
def memory(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Show what the agent knows for everybody, and which collections it uses."""
    version = _version_shown(agent)
    return render_agent_page(
        request,
        "admin/agents/agent/memory.html",
        agent,
        tab="memory",
        version=version,
        knowledge=knowledge_of(agent.slug, collections=version.knowledge),
        may_view_knowledge=may_view_knowledge(request),
        may_change_knowledge=may_change_knowledge(request),
        may_view_memories=may_view_memories(request),
    )


@for_viewers
def begin_own(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Go to the form that adds to what the agent knows for everybody."""
    if not may_change_knowledge(request):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    return redirect("admin:memory_memoryowner_add_memory", agent_owner(agent.slug).pk)


@require_safe
@for_viewers
def recall(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Show what a question would recall as the first of a new conversation, of one person or of a stranger."""
    subject_id, person = _person_in(request)
    if person and not may_view_memories(request):
        raise PermissionDenied
    version = _version_shown(agent)
    form = QuestionForm(request.GET) if "question" in request.GET else QuestionForm()
    recalled = None
    if form.is_bound and form.is_valid():
        recalled = _try(snapshot_of(agent, version), form.cleaned_data["question"], subject_id=subject_id)
    return render_agent_page(
        request,
        "admin/agents/agent/recall.html",
        agent,
        tab="memory",
        version=version,
        form=form,
        person=person,
        subject_id=subject_id,
        recalled=recalled,
        has_failed=bool(recalled and recalled.outcome in (Outcome.SLOW, Outcome.FAILED)),
        chosen=_shown(recalled) if recalled else [],
        left_out=_left_out(recalled) if recalled else [],
    )


@require_safe
def named(request: HttpRequest, slug: str, page: str) -> HttpResponseBase:
    """Go to a page of the agent that is called `slug`, from where only its name is known."""
    agent_id = Agent.objects.filter(slug=slug).values_list("pk", flat=True).first()
    if agent_id is None or page not in PAGES:
        messages.error(request, f"There is no agent called {slug} any more.")
        return redirect("admin:agents_agent_changelist")
    query = request.GET.urlencode()
    return redirect(reverse(f"admin:agents_agent_{page}", args=(agent_id,)) + (f"?{query}" if query else ""))


def _version_shown(agent: Agent) -> AgentVersion:
    """Return the version that answers, or the one that will be the first to."""
    return agent.live_version or version_to_edit(agent)


def _person_in(request: HttpRequest) -> tuple[int | None, PersonName | None]:
    given = request.GET.get("person", "")
    subject_id = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
    person = find_person(subject_id) if subject_id is not None else None
    return (subject_id, person) if person else (None, None)


def _try(answering: Answering, question: str, *, subject_id: int | None) -> Recalled:
    # No database connection is held while the question is embedded. Under ASGI this runs in the server's own event loop.
    if not connection.in_atomic_block:
        connection.close()
    for _ in range(TRIES):
        recalled: Recalled = async_to_sync(try_recall)(answering, message=question, subject_id=subject_id)
        if recalled.outcome != Outcome.SLOW:
            break
    return recalled


def _shown(recalled: Recalled) -> list[Shown]:
    owners = _owners(recalled)
    return [_one(memory, owners) for memory in recalled.passages]


def _left_out(recalled: Recalled) -> list[Shown]:
    owners = _owners(recalled)
    return [_one(each.passage, owners, left_out=LEFT_OUT.get(each.reason, each.reason)) for each in recalled.left_out]


def _one(memory: Ranked, owners: dict[int, str], *, left_out: str = "") -> Shown:
    return Shown(
        memory=memory,
        whose=owners.get(memory.owner_id, ""),
        reasons=draw_reasons(memory.contributions()),
        url=reverse("admin:memory_memoryowner_change", args=(memory.owner_id,)),
        left_out=left_out,
    )


def _owners(recalled: Recalled) -> dict[int, str]:
    ids = {memory.owner_id for memory in (*recalled.passages, *(each.passage for each in recalled.left_out))}
    return {owner.pk: name_owner(owner) for owner in MemoryOwner.objects.filter(pk__in=ids)}
