"""Users over HTTP: all that is kept about one, as a document, and its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from uuid import UUID

from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request

from agents.access import Caller, require_scope
from agents.models import Scope
from agents.rest.asyncview import AsyncAPIView
from agents.rest.authentication import caller_of
from agents.rest.people_shapes import USER, Export, ReceiptShape
from agents.rest.private import actor_of, private_json, user_in_path
from agents.rest.problems import KEY_NEEDED, problems
from memory.api import erase_user, export_user, read_receipt


class UserView(AsyncAPIView):
    """A user, to be erased."""

    @extend_schema(
        operation_id="erase_user",
        summary="Erase a user for good",
        parameters=[USER],
        responses={(200, "application/json"): ReceiptShape, **problems(400, 401, 403, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def delete(self, request: Request, user: str) -> HttpResponseBase:
        caller = await caller_of(request)
        require_scope(caller, Scope.ERASE)
        name = user_in_path(caller, user)
        return private_json(asdict(await erase_user(caller.owner, name, actor=actor_of(caller))))


class ExportView(AsyncAPIView):
    """All that is kept about a user."""

    @extend_schema(
        operation_id="export_user",
        summary="Export all that is kept about a user",
        parameters=[USER],
        responses={(200, "application/json"): Export, **problems(400, 401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def get(self, request: Request, user: str) -> HttpResponseBase:
        caller = await caller_of(request)
        if Scope.ERASE not in caller.scopes:
            require_scope(caller, Scope.MANAGE_MEMORIES)
        document = export_user(caller.owner, user_in_path(caller, user), may_see=_agents_to_see(caller))
        response = StreamingHttpResponse(_behind(await anext(document), document), content_type="application/json")
        response["Content-Disposition"] = 'attachment; filename="export.json"'
        response["Cache-Control"] = "no-store"
        return response


class ErasureView(AsyncAPIView):
    """The receipt of an erasure, again."""

    @extend_schema(
        operation_id="get_erasure",
        summary="Read the receipt of an erasure",
        parameters=[OpenApiParameter("id", OpenApiTypes.UUID, OpenApiParameter.PATH, description="The receipt's id.")],
        responses={(200, "application/json"): ReceiptShape, **problems(401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def get(self, request: Request, id: UUID) -> HttpResponseBase:
        caller = await caller_of(request)
        require_scope(caller, Scope.ERASE)
        return private_json(asdict(await read_receipt(id, owner=caller.owner, name=caller.user or None)))


def _agents_to_see(caller: Caller) -> Callable[[str], bool]:
    """Who may erase all of a user may read all of it; others see what the agents know that they may use."""
    return (lambda _: True) if Scope.ERASE in caller.scopes else caller.may_use


async def _behind(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for piece in rest:
        yield piece
