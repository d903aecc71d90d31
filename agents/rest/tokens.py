"""Tokens for end users: `POST /api/tokens`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec
from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.utils import extend_schema
from pydantic import BaseModel, Field, StringConstraints
from rest_framework.request import Request

from agents.access import Caller, MissingScope, key_ring, require_scope
from agents.access.tokens import DEFAULT_S, LONGEST_S, Claims, sign_token
from agents.models import Scope
from agents.rest.asyncview import AsyncAPIView
from agents.rest.authentication import caller_of
from agents.rest.problems import KEY_NEEDED, problems
from agents.rest.shapes import Strict, UserName, read
from agents.versions.live import AgentNotFound

_encode: Final = msgspec.json.Encoder().encode


class TokenRequest(Strict):
    """Whom a token is for, and what it opens."""

    user: UserName = Field(description="The end user whom the token stands for.")
    agents: list[Annotated[str, StringConstraints(min_length=1, max_length=63)]] | None = Field(
        default=None, min_length=1, max_length=20, description="Slugs of agents that the key may use. Absent: all of them."
    )
    scopes: list[Literal["chat", "manage_memories"]] = Field(
        default=["chat"], min_length=1, max_length=2, description="What of the key's scopes the token has."
    )
    expires_in_s: int = Field(default=DEFAULT_S, ge=1, le=LONGEST_S, description="How long it is valid, at most a day.")


class TokenAnswer(BaseModel):
    """A token, to be sent as `Authorization: Bearer …` like a key."""

    token: str
    expires_at: datetime = Field(description="ISO 8601, UTC. The key's own expiry where that comes first.")


class TokenView(AsyncAPIView):
    """Issues tokens that a browser or an app may hold: for one user, for a while, never more than the key itself may do."""

    @extend_schema(
        operation_id="create_token",
        summary="Issue a token for an end user",
        request=TokenRequest,
        responses={(201, "application/json"): TokenAnswer, **problems(400, 401, 403, 404, 406, 413, 415, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def post(self, request: Request) -> HttpResponseBase:
        caller = await caller_of(request)
        require_scope(caller, Scope.CHAT)
        if caller.user:
            raise MissingScope("A token cannot issue tokens. Use the API key itself, on your server.")
        asked = read(TokenRequest, request.data)
        for scope in asked.scopes:
            require_scope(caller, scope)
        _check_agents(caller, asked.agents)
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=asked.expires_in_s)
        key_ends_at = (await key_ring.find(caller.key_id)).expires_at
        claims = Claims(
            key_id=caller.key_id,
            user=asked.user,
            scopes=frozenset(asked.scopes),
            agents=None if asked.agents is None else frozenset(asked.agents),
            expires_at=min(expires_at, key_ends_at.replace(microsecond=0)) if key_ends_at else expires_at,
        )
        answer = {"token": sign_token(claims), "expires_at": claims.expires_at}
        response = HttpResponse(_encode(answer), content_type="application/json", status=201)
        response["Cache-Control"] = "no-store"
        return response


def _check_agents(caller: Caller, slugs: list[str] | None) -> None:
    if slugs is not None and not all(caller.may_use(slug) for slug in slugs):
        raise AgentNotFound
