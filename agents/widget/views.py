"""The chat page and the list of agents. Both only read; the conversation itself goes through the public API, in the browser."""

from __future__ import annotations

from typing import Final

from csp.constants import NONE, SELF
from csp.decorators import csp_replace
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from agents.models import Access, Agent
from agents.versions.live import AgentNotFound

# What the site's policy leaves open and these pages need not: forms are sent by script, images are the site's own, and
# no script may turn text into HTML but DOMPurify (Trusted Types, where the browser knows them).
PAGE_POLICY: Final = {
    "form-action": [NONE],
    "img-src": [SELF],
    "require-trusted-types-for": ["'script'"],
    "trusted-types": ["dompurify"],
}
LONGEST_LIST: Final = 500


class NoSuchPage(AgentNotFound, Http404):
    """No agent of that name, or none that anonymous people may talk to: the two look alike."""

    remedy = "There is no agent here that you can talk to. Check the address, or choose one from the list of agents."


@require_safe
def list_agents(request: HttpRequest) -> HttpResponse:
    """List the agents that anybody may talk to."""
    return render(request, "chat/index.html", {"agents": _open_agents().order_by("name", "slug")[:LONGEST_LIST]})


@require_safe
@csp_replace(PAGE_POLICY)  # type: ignore[arg-type] # django-csp describes only views without arguments
def chat_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the chat with one agent.

    Raises:
        NoSuchPage: unknown, switched off, never published, or only for callers with a key.
    """
    agent = _open_agents().filter(slug=slug).first()
    if agent is None:
        raise NoSuchPage
    context = {
        "agent": agent,
        "endpoint": f"/api/chat/{agent.slug}",
        "agent_url": f"/api/agents/{agent.slug}",
        "endpoint_in_full": request.build_absolute_uri(f"/api/chat/{agent.slug}"),
    }
    return render(request, "chat/page.html", context)


def _open_agents() -> QuerySet[Agent]:
    return Agent.objects.filter(is_active=True, access=Access.PUBLIC, live_version__isnull=False).only("slug", "name", "description")
