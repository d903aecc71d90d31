"""The switch that lets an agent's log hold what is said, for a while: for those who may read conversations anyway."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_POST

from agents.models import Agent

from .pages import agent_url, for_viewers, person_of
from .permissions import may_view_turns

log = structlog.get_logger(__name__)

DURATIONS: Final = {15: "15 minutes", 60: "1 hour", 1440: "24 hours"}
"""For how many minutes messages may be logged, in words."""
_ON: Final = "Messages are logged"
_OFF: Final = "Messages are no longer logged"


@dataclass(frozen=True, kw_only=True)
class Switch:
    """How the switch stands, for the agent's pages.

    Attributes:
        until: when it switches itself off; None: it is off.
        entries: who used it, the newest first.
    """

    until: datetime | None
    entries: list[LogEntry]
    may_use: bool
    durations: dict[int, str]


def switch_of(request: HttpRequest, agent: Agent) -> Switch:
    """Return how the switch of `agent` stands."""
    until = agent.log_messages_until
    used = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(Agent), object_id=str(agent.pk), change_message__startswith="Messages are "
    )
    return Switch(
        until=until if until and until > timezone.now() else None,
        entries=list(used.select_related("user")[:5]),
        may_use=may_view_turns(request),
        durations=DURATIONS,
    )


@require_POST
@for_viewers
@transaction.atomic
def switch(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Switch it on for so many `minutes`, or off at once with 0."""
    if not may_view_turns(request):
        raise PermissionDenied
    minutes = request.POST.get("minutes", "")
    if minutes == "0":
        _set(request, agent, until=None, words=f"{_OFF}.")
    elif minutes in map(str, DURATIONS):
        until = timezone.now() + timedelta(minutes=int(minutes))
        _set(request, agent, until=until, words=f"{_ON} until {until:%Y-%m-%d %H:%M} UTC.")
    else:
        raise Http404
    return redirect(agent_url("settings", agent))


def _set(request: HttpRequest, agent: Agent, *, until: datetime | None, words: str) -> None:
    person = person_of(request)
    Agent.objects.filter(pk=agent.pk).update(log_messages_until=until)
    LogEntry.objects.create(
        user_id=person.pk,
        content_type=ContentType.objects.get_for_model(Agent),
        object_id=str(agent.pk),
        object_repr=str(agent)[:200],
        action_flag=CHANGE,
        change_message=words,
    )
    log.warning("logging of messages switched", agent=agent.slug, until=until, by=person.get_username())
    messages.success(request, words)
