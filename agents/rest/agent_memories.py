"""What an agent knows for everybody, over HTTP."""

from __future__ import annotations

from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from agents.access import Caller, require_scope
from agents.models import Scope
from agents.rest.asyncview import AsyncAPIView
from agents.rest.authentication import caller_of
from agents.rest.memory_answers import change_memory, memory_page
from agents.rest.people_shapes import (
    AGENT,
    ID,
    AgentMemoryQuery,
    ChangedMemory,
    Forgotten,
    MemoryId,
    MemoryList,
    NewAgentMemory,
    parameters,
    read_query,
)
from agents.rest.private import actor_of, check_agent, check_memory_id, private_json
from agents.rest.problems import KEY_NEEDED, problems
from agents.rest.shapes import read
from memory.api import add, agent_owner, forget
from observability.api import run_burst


class AgentMemoriesView(AsyncAPIView):
    """What an agent knows for everybody."""

    @extend_schema(
        operation_id="list_agent_memories",
        summary="List what an agent knows for everybody",
        parameters=[AGENT, *parameters(AgentMemoryQuery)],
        responses={(200, "application/json"): MemoryList, **problems(400, 401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def get(self, request: Request, agent: str) -> HttpResponseBase:
        _, owner_id = await _for_everybody(request, agent)
        return await memory_page(owner_id, read_query(AgentMemoryQuery, request.query_params))

    @extend_schema(
        operation_id="add_agent_memory",
        summary="Let an agent know something for everybody",
        parameters=[AGENT],
        request=NewAgentMemory,
        responses={(201, "application/json"): MemoryId, **problems(400, 401, 403, 404, 406, 413, 415, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def post(self, request: Request, agent: str) -> HttpResponseBase:
        caller, owner_id = await _for_everybody(request, agent)
        new = read(NewAgentMemory, request.data)
        return private_json({"id": await add(owner_id, text=new.text, author=actor_of(caller))}, status=201)


class AgentMemoryView(AsyncAPIView):
    """One thing that an agent knows for everybody."""

    @extend_schema(
        operation_id="correct_agent_memory",
        summary="Correct or pin what an agent knows for everybody",
        parameters=[AGENT, ID],
        request=ChangedMemory,
        responses={(200, "application/json"): MemoryId, **problems(400, 401, 403, 404, 406, 409, 413, 415, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def patch(self, request: Request, agent: str, id: int) -> HttpResponseBase:
        caller, owner_id = await _for_everybody(request, agent)
        return await change_memory(owner_id, check_memory_id(id), read(ChangedMemory, request.data), caller)

    @extend_schema(
        operation_id="forget_agent_memory",
        summary="Forget one thing that an agent knows for everybody",
        parameters=[AGENT, ID],
        responses={(200, "application/json"): Forgotten, **problems(400, 401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def delete(self, request: Request, agent: str, id: int) -> HttpResponseBase:
        _, owner_id = await _for_everybody(request, agent)
        return private_json({"forgotten": await run_burst(forget, owner_id, check_memory_id(id))})


async def _for_everybody(request: Request, agent: str) -> tuple[Caller, int]:
    """Return who is calling, and the owner of what `agent` knows for everybody. End users have no say in that."""
    caller = await caller_of(request)
    require_scope(caller, Scope.MANAGE_KNOWLEDGE)
    owner = await run_burst(agent_owner, await check_agent(caller, agent))
    return caller, owner.pk
