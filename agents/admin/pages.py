"""What every page of one agent shares: who may open it, its tabs, and how it is rendered inside the admin."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast

from django.contrib import admin, messages
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from agents.models import Agent, AgentVersion
from agents.versions.comparison import compare
from agents.versions.drafts import draft_of, start_draft
from observability.errors import ChatbotError

from .permissions import may_edit_agents, may_view_agents

P = ParamSpec("P")
AgentView = Callable[Concatenate[HttpRequest, Agent, P], HttpResponseBase]


def for_viewers(view: AgentView[P]) -> Callable[..., HttpResponseBase]:
    """Open `view` to everybody who may see agents."""
    return _guard(view, editors_only=False)


def for_editors(view: AgentView[P]) -> Callable[..., HttpResponseBase]:
    """Open `view` to those who may change agents. What it is refused is said on the agent's page, never as an error page."""
    return _guard(view, editors_only=True)


def _guard(view: AgentView[P], *, editors_only: bool) -> Callable[..., HttpResponseBase]:
    @wraps(view)
    def guarded(request: HttpRequest, agent_id: int, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not (may_edit_agents if editors_only else may_view_agents)(request):
            raise PermissionDenied
        agent = Agent.objects.select_related("live_version__author", "live_version__provider").filter(pk=agent_id).first()
        if agent is None:
            raise Http404
        try:
            return view(request, agent, *args, **kwargs)
        except ChatbotError as error:
            messages.error(request, error.detail)
            # Never back to the page that refused: that could go round in circles.
            return redirect(agent_url("change", agent) if request.method == "POST" else "admin:agents_agent_changelist")

    return guarded


def person_of(request: HttpRequest) -> AbstractBaseUser:
    """Return who asks; the admin's views never see anonymous people."""
    return cast("AbstractBaseUser", request.user)


def version_to_edit(agent: Agent) -> AgentVersion:
    """Return what an edit page starts from: the draft, else what is live, else the newest version.

    A published one comes without its note. An agent that somehow has none gets an empty draft, so that its pages work and
    the way on is to fill it in.
    """
    version = draft_of(agent) or agent.live_version or agent.versions.order_by("-number").first() or start_draft(agent, author=None)
    if version.published_at is None:
        return version
    # A note says what its own version changed. On a copy: the page shows the live version, too.
    version = copy(version)
    version.note = ""
    return version


def render_page(request: HttpRequest, template: str, *, title: str, status: int = 200, **context: Any) -> TemplateResponse:
    """Render `template` inside the admin's frame."""
    context = {**admin.site.each_context(request), "title": title, "may_edit": may_edit_agents(request), **context}
    return TemplateResponse(request, template, context, status=status)


def render_agent_page(
    request: HttpRequest, template: str, agent: Agent, *, tab: str, status: int = 200, **context: Any
) -> TemplateResponse:
    """Render one of the agent's pages with its tabs and, at a glance, what is live and what is drafted."""
    draft = draft_of(agent)
    last = agent.publications.select_related("actor", "version").first()
    shared = {
        "agent": agent,
        "original": agent,
        "opts": Agent._meta,
        "tab": tab,
        "live": agent.live_version,
        "draft": draft,
        "last_publication": last,
        "draft_changes": compare(agent.live_version, draft) if draft and agent.live_version else [],
        "ever_published": agent.versions.exclude(published_at=None).exists(),
        "chat_url": f"/chat/{agent.slug}",
        "messages_logged_until": until if (until := agent.log_messages_until) and until > timezone.now() else None,
    }
    return render_page(request, template, title=agent.name, status=status, **{**shared, **context})


def agent_url(page: str, agent: Agent, *args: Any) -> str:
    """Return the address of an agent's page, such as `agent_url("versions", agent)`."""
    return reverse(f"admin:agents_agent_{page}", args=(agent.pk, *args))
