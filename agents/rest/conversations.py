"""Conversations over HTTP, for keys that may read them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final, TypeVar

from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request

from agents.access import require_scope, user_named
from agents.models import Scope
from agents.rest.asyncview import AsyncAPIView
from agents.rest.authentication import caller_of
from agents.rest.people_shapes import ConversationQuery, ConversationShape, MessageList, MessageQuery, parameters, read_query
from agents.rest.private import MOST_NAME_CHARS, check_agent, private_json
from agents.rest.problems import KEY_NEEDED, problems
from memory.api import ConversationCard, ConversationNotFound, find_conversation, list_messages
from observability.api import run_burst

Asked = TypeVar("Asked", bound=ConversationQuery)

_SESSION: Final = OpenApiParameter("session_id", OpenApiTypes.STR, OpenApiParameter.PATH, description="The session's id.")


class ConversationView(AsyncAPIView):
    """A conversation: with which agent, since when, how long."""

    @extend_schema(
        operation_id="get_conversation",
        summary="Describe a conversation",
        parameters=[_SESSION, *parameters(ConversationQuery)],
        responses={(200, "application/json"): ConversationShape, **problems(400, 401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def get(self, request: Request, session_id: str) -> HttpResponseBase:
        conversation, _ = await _conversation(request, session_id, ConversationQuery)
        return private_json(
            {
                "session_id": conversation.session_id,
                "agent": conversation.agent,
                "user": None if "/" in conversation.user else conversation.user,
                "began_at": conversation.began_at,
                "last_message_at": conversation.last_turn_at,
                "messages": conversation.turns,
                "summary": conversation.summary,
            }
        )


class MessagesView(AsyncAPIView):
    """A conversation's messages, each with its reply."""

    @extend_schema(
        operation_id="list_messages",
        summary="Read a conversation's messages",
        parameters=[_SESSION, *parameters(MessageQuery)],
        responses={(200, "application/json"): MessageList, **problems(400, 401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def get(self, request: Request, session_id: str) -> HttpResponseBase:
        conversation, query = await _conversation(request, session_id, MessageQuery)
        # One more than is shown tells whether there are more.
        messages = await run_burst(list_messages, conversation.id, after=query.cursor, limit=query.limit + 1)
        shown = messages[: query.limit]
        return private_json(
            {"messages": [asdict(message) for message in shown], "next": str(shown[-1].number) if len(messages) > len(shown) else ""}
        )


async def _conversation(request: Request, session_id: str, shape: type[Asked]) -> tuple[ConversationCard, Asked]:
    """Return the conversation that a request means, and the request's query."""
    caller = await caller_of(request)
    require_scope(caller, Scope.READ_CONVERSATIONS)
    query = read_query(shape, request.query_params)
    user = user_named(caller, query.user)
    if len(session_id) > MOST_NAME_CHARS or "\x00" in session_id:
        raise ConversationNotFound
    agent = await check_agent(caller, query.agent)
    return await run_burst(find_conversation, caller.owner, agent=agent, session_id=session_id, subject=user), query
