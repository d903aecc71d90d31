"""The chat endpoint and the agents one may talk to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final, cast

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from agents.access import require_scope, user_named
from agents.chat.answer import answer, live_versions
from agents.chat.events import Done, Started
from agents.chat.question import Question
from agents.models import Scope
from agents.rest.asyncview import AsyncAPIView
from agents.rest.authentication import address_of, caller_of
from agents.rest.problems import KEY_OPTIONAL, problems
from agents.rest.shapes import AgentCard, AgentList, ChatAnswer, ChatRequest, read
from agents.rest.sse import MEDIA_TYPE, EventStreamRenderer, chat_answer, stream_events
from agents.versions.live import AgentNotFound, Answering, list_live
from observability.api import run_burst
from observability.errors import BadRequest

_encode: Final = msgspec.json.Encoder().encode
_NOT_YET: Final = {"HTTP_IDEMPOTENCY_KEY": "Idempotency-Key", "HTTP_LAST_EVENT_ID": "Last-Event-ID"}


class ChatView(AsyncAPIView):
    """One message in, one reply out: whole, or as a stream of server-sent events."""

    renderer_classes = [JSONRenderer, EventStreamRenderer]
    counts_itself = True

    @extend_schema(
        operation_id="chat",
        summary="Send a message to an agent",
        request=ChatRequest,
        parameters=[OpenApiParameter("agent", OpenApiTypes.STR, OpenApiParameter.PATH, description="The agent's slug.")],
        responses={
            (200, "application/json"): ChatAnswer,
            (200, MEDIA_TYPE): OpenApiResponse(
                OpenApiTypes.STR,
                description="Events `start`, `delta` ({text}), then `done` (the JSON answer) or `error` (a problem document).",
            ),
            **problems(400, 401, 402, 403, 404, 406, 413, 415, 429, 502, 503, 504),
        },
        auth=KEY_OPTIONAL,
    )
    async def post(self, request: Request, agent: str) -> HttpResponseBase:
        meta = request.META
        for name, header in _NOT_YET.items():
            if name in meta:
                raise BadRequest(f"This server does not support {header} yet. Send the request without that header.")
        caller = await caller_of(request)
        if caller.key_id:
            require_scope(caller, Scope.CHAT)
        asked = read(ChatRequest, request.data)
        user = user_named(caller, asked.user)
        if asked.version is not None:
            require_scope(caller, Scope.PINNED_VERSIONS)
        request_id = request_id_of(request)
        question = Question(
            agent=agent,
            message=asked.message,
            caller=caller,
            session_id=asked.session_id,
            user=user,
            version=asked.version,
            stream=asked.stream or request.accepted_renderer.media_type == MEDIA_TYPE,
            metadata=asked.metadata,
            request_id=request_id,
            address=address_of(request) or "unknown",  # such as over a Unix socket: all who come so count together
            wants_fresh="no-cache" in meta.get("HTTP_CACHE_CONTROL", "").lower(),
        )
        if question.stream:
            return await stream_events(question, request_id)
        async with aclosing(answer(question)) as events:
            started = last = await anext(events)
            async for event in events:  # to its end: to close it earlier would interrupt it
                last = event
        return _json(chat_answer(cast("Done", last)), cast("Started", started).headers)


class AgentListView(AsyncAPIView):
    """The active, published agents that the caller may use."""

    @extend_schema(
        operation_id="list_agents",
        summary="List the agents you may talk to",
        responses={(200, "application/json"): AgentList, **problems(401, 406, 429, 503)},
        auth=KEY_OPTIONAL,
    )
    async def get(self, request: Request) -> HttpResponseBase:
        caller = await caller_of(request)
        agents = await run_burst(list_live, lambda agent: caller.may_use(agent.slug, access=agent.access))
        return _json({"agents": [_card(agent) for agent in agents]})


class AgentView(AsyncAPIView):
    """One agent: its name, what it is for, and its greeting."""

    @extend_schema(
        operation_id="get_agent",
        summary="Describe one agent",
        parameters=[OpenApiParameter("agent", OpenApiTypes.STR, OpenApiParameter.PATH, description="The agent's slug.")],
        responses={(200, "application/json"): AgentCard, **problems(401, 404, 406, 429, 503)},
        auth=KEY_OPTIONAL,
    )
    async def get(self, request: Request, agent: str) -> HttpResponseBase:
        caller = await caller_of(request)
        live = await live_versions.find(agent)
        if not caller.may_use(live.slug, access=live.access):
            raise AgentNotFound
        return _json(_card(live))


def request_id_of(request: Request | HttpRequest) -> str:
    """Return the id that the middleware gave the request, "" where none ran."""
    return str(getattr(request, "request_id", ""))


def _card(agent: Answering) -> dict[str, Any]:
    return {
        "slug": agent.slug,
        "name": agent.name,
        "description": agent.description,
        "greeting": agent.greeting,
        "version": agent.number,
        "demo": agent.is_demo,
    }


def _json(data: dict[str, Any], headers: Mapping[str, str] | None = None) -> HttpResponse:
    return HttpResponse(_encode(data), content_type="application/json", headers=headers)
