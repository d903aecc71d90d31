"""A user's memories over HTTP."""

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
    ID,
    USER,
    ChangedMemory,
    ForgetQuery,
    Forgotten,
    MemoryId,
    MemoryList,
    MemoryQuery,
    NewMemory,
    parameters,
    read_query,
)
from agents.rest.private import actor_of, check_agent, check_memory_id, private_json, user_in_path
from agents.rest.problems import KEY_NEEDED, problems
from agents.rest.shapes import read
from memory.api import (
    add,
    forget,
    forget_all,
    known_subject,
    owner_for,
    owner_of_memory,
    owners_of_subject,
    person_owner,
    subject_for,
)
from observability.api import run_burst


class UserMemoriesView(AsyncAPIView):
    """What an agent remembers of a user."""

    @extend_schema(
        operation_id="list_memories",
        summary="List what is remembered of a user",
        parameters=[USER, *parameters(MemoryQuery)],
        responses={(200, "application/json"): MemoryList, **problems(400, 401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def get(self, request: Request, user: str) -> HttpResponseBase:
        caller, user = await _caller_about(request, user)
        query = read_query(MemoryQuery, request.query_params)
        agent = await check_agent(caller, query.agent)
        subject_id = await run_burst(known_subject, caller.owner, user)
        owner = await run_burst(owner_for, agent, subject_id)
        return await memory_page(owner.pk, query) if owner else private_json({"memories": [], "next": ""})

    @extend_schema(
        operation_id="add_memory",
        summary="Let an agent know something about a user",
        parameters=[USER],
        request=NewMemory,
        responses={(201, "application/json"): MemoryId, **problems(400, 401, 403, 404, 406, 413, 415, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def post(self, request: Request, user: str) -> HttpResponseBase:
        caller, user = await _caller_about(request, user)
        new = read(NewMemory, request.data)
        agent = await check_agent(caller, new.agent)
        owner_id = await run_burst(_owner_to_write, caller.owner, user, agent)
        return private_json({"id": await add(owner_id, text=new.text, author=actor_of(caller))}, status=201)

    @extend_schema(
        operation_id="forget_memories",
        summary="Forget all that is remembered of a user; the conversations stay",
        parameters=[USER, *parameters(ForgetQuery)],
        responses={(200, "application/json"): Forgotten, **problems(400, 401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def delete(self, request: Request, user: str) -> HttpResponseBase:
        caller, user = await _caller_about(request, user)
        query = read_query(ForgetQuery, request.query_params)
        agent = query.agent and await check_agent(caller, query.agent)
        subject_id = await run_burst(known_subject, caller.owner, user)
        owners = [owner for owner in await run_burst(owners_of_subject, subject_id) if caller.may_use(owner.agent)]
        forgotten = [await forget_all(owner.pk) for owner in owners if agent in (None, owner.agent)]
        return private_json({"forgotten": sum(forgotten)})


class UserMemoryView(AsyncAPIView):
    """One memory of a user."""

    @extend_schema(
        operation_id="correct_memory",
        summary="Correct or pin a memory",
        parameters=[USER, ID],
        request=ChangedMemory,
        responses={(200, "application/json"): MemoryId, **problems(400, 401, 403, 404, 406, 409, 413, 415, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def patch(self, request: Request, user: str, id: int) -> HttpResponseBase:
        caller, user = await _caller_about(request, user)
        change = read(ChangedMemory, request.data)
        return await change_memory(await _owner_of(caller, user, id), id, change, caller)

    @extend_schema(
        operation_id="forget_memory",
        summary="Forget one memory for good",
        parameters=[USER, ID],
        responses={(200, "application/json"): Forgotten, **problems(400, 401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def delete(self, request: Request, user: str, id: int) -> HttpResponseBase:
        caller, user = await _caller_about(request, user)
        return private_json({"forgotten": await run_burst(forget, await _owner_of(caller, user, id), id)})


async def _caller_about(request: Request, user: str) -> tuple[Caller, str]:
    caller = await caller_of(request)
    require_scope(caller, Scope.MANAGE_MEMORIES)
    return caller, user_in_path(caller, user)


async def _owner_of(caller: Caller, user: str, memory_id: int) -> int:
    subject_id = await run_burst(known_subject, caller.owner, user)
    return await run_burst(owner_of_memory, check_memory_id(memory_id), subject_id=subject_id, may_see=caller.may_use)


def _owner_to_write(owner: str, user: str, agent: str) -> int:
    return person_owner(agent, subject_for(owner, user)).pk
