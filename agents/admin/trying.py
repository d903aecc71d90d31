"""*Try it*: the chat page on the unpublished draft, for editors. The conversation is kept apart from everybody else's."""

from __future__ import annotations

from typing import cast

import msgspec
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.urls import reverse

from agents.access import editor
from agents.chat.question import Question
from agents.models import Agent
from agents.rest.shapes import ChatRequest, read
from agents.rest.sse import stream_events
from agents.versions.live import version_to_try
from agents.versions.publishing import default_provider
from observability.api import run_burst
from observability.errors import BadRequest, ChatbotError

from .pages import for_editors, render_agent_page, version_to_edit
from .permissions import may_edit_agents


@for_editors
def page(request: HttpRequest, agent: Agent) -> HttpResponseBase:
    """Show the chat with the draft, or with the live version where there is no draft."""
    version = version_to_try(agent) or version_to_edit(agent)
    provider = version.provider or default_provider()
    return render_agent_page(
        request,
        "admin/agents/agent/try.html",
        agent,
        tab="try",
        version=version,
        is_demo=bool(provider and provider.is_demo),
        try_url=reverse("admin:agents_agent_try_chat", args=(agent.pk,)),
        # A draft that was changed begins a new conversation: the old answers were another prompt's.
        storage_key=f"try-{version.pk}-{version.updated_at.timestamp():.0f}",
    )


async def chat(request: HttpRequest, agent_id: int) -> HttpResponseBase:
    """Answer a message with the draft, as the same stream of events that the API sends.

    Async, so that an answer under way costs no thread; no database connection is held while the model is awaited.
    """
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    user_id, slug = await run_burst(_admit, request, agent_id)
    request_id = str(getattr(request, "request_id", ""))
    try:
        asked = _read(request)
        question = Question(
            agent=slug,
            message=asked.message,
            caller=editor(user_id),
            session_id=asked.session_id,
            draft=True,
            stream=True,
            request_id=request_id,
        )
        return await stream_events(question, request_id)
    except ChatbotError as error:
        again = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        return JsonResponse(
            error.document(request_id), status=error.status, content_type="application/problem+json", headers={**error.headers, **again}
        )


def _admit(request: HttpRequest, agent_id: int) -> tuple[int, str]:
    if not may_edit_agents(request):
        raise PermissionDenied
    slug = Agent.objects.filter(pk=agent_id).values_list("slug", flat=True).first()
    if slug is None:
        raise Http404
    return cast("AbstractUser", request.user).pk, slug


def _read(request: HttpRequest) -> ChatRequest:
    try:
        return read(ChatRequest, msgspec.json.decode(request.body))
    except (ValueError, RecursionError):
        raise BadRequest("The body must be JSON.") from None
