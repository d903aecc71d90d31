"""API keys over HTTP: a key with the scope `manage_keys` makes, lists, rotates and revokes its owner's keys.

It hands on nothing that it has not itself: scopes, agents and its own end bound every key that it makes or rotates, and one that
opens more than it does is not for it to rotate. What they spend counts on its own budgets, too. A token never manages keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request

from agents.access import Caller, MissingScope, require_scope
from agents.access.issuing import IssuedKey, issue_key, revoke_key, rotate_key
from agents.access.keyring import InvalidKey
from agents.models import Agent, ApiKey, KeyOwner, Scope
from agents.rest.asyncview import AsyncAPIView
from agents.rest.authentication import caller_of
from agents.rest.key_shapes import KeyList, KeyShape, KeyState, NewKey, NewSecret, Rotation
from agents.rest.private import private_json
from agents.rest.problems import KEY_NEEDED, problems
from agents.rest.shapes import read
from agents.versions.live import AgentNotFound
from observability.api import run_burst
from observability.errors import NotFound

P = ParamSpec("P")
T = TypeVar("T")

MOST_LISTED: Final = 1000
_ID: Final = OpenApiParameter("id", OpenApiTypes.STR, OpenApiParameter.PATH, description="The key's public id: the part before the dot.")


class KeyNotFound(NotFound):
    """No such key, or not one of this caller's owner: the two look alike."""

    code = "key-not-found"
    title = "Key not found"
    remedy = "Check the key's id, the part before the dot; GET /api/keys lists your owner's."


class KeysView(AsyncAPIView):
    """The keys of the caller's owner."""

    @extend_schema(
        operation_id="list_keys",
        summary="List your owner's API keys",
        responses={(200, "application/json"): KeyList, **problems(401, 403, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def get(self, request: Request) -> HttpResponseBase:
        return private_json({"keys": await _managing(request, _list)})

    @extend_schema(
        operation_id="create_key",
        summary="Make an API key",
        request=NewKey,
        responses={(201, "application/json"): NewSecret, **problems(400, 401, 403, 404, 406, 413, 415, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return private_json(await _managing(request, _create, lambda: read(NewKey, request.data)), status=201)


class KeyView(AsyncAPIView):
    """One key of the caller's owner."""

    @extend_schema(
        operation_id="revoke_key",
        summary="End an API key and its tokens for good",
        parameters=[_ID],
        responses={(200, "application/json"): KeyShape, **problems(401, 403, 404, 406, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def delete(self, request: Request, id: str) -> HttpResponseBase:
        return private_json(await _managing(request, _revoke, lambda: id))


class KeyRotationView(AsyncAPIView):
    """A successor for a key."""

    @extend_schema(
        operation_id="rotate_key",
        summary="Make a successor of an API key, which goes on for a while",
        parameters=[_ID],
        request=Rotation,
        responses={(201, "application/json"): NewSecret, **problems(400, 401, 403, 404, 406, 409, 413, 415, 429, 503)},
        auth=KEY_NEEDED,
    )
    async def post(self, request: Request, id: str) -> HttpResponseBase:
        return private_json(await _managing(request, _rotate, lambda: (id, read(Rotation, request.data))), status=201)


async def _managing(request: Request, act: Callable[..., T], *given: Callable[[], Any]) -> T:
    """Do `act` as the key that asks, with what is `given` in the request, which is read only from those who may."""
    caller = await caller_of(request)
    require_scope(caller, Scope.MANAGE_KEYS)
    if caller.user:
        raise MissingScope("A token never manages keys. Use the API key itself, on your server.")
    return await run_burst(_act_as, caller, act, *(value() for value in given))


def _act_as(caller: Caller, act: Callable[Concatenate[ApiKey, P], T], *given: P.args, **named: P.kwargs) -> T:
    with transaction.atomic():
        # One at a time for each owner, so that two keys that rotate each other never wait for each other.
        list(KeyOwner.objects.select_for_update(no_key=True).filter(keys__prefix=caller.key_id))
        # As it is now, not as this process last knew it: what it lost a moment ago, it cannot hand on. Who revokes it waits for us.
        own = ApiKey.objects.select_for_update(of=("self",)).select_related("owner").filter(prefix=caller.key_id).first()
        if own is None or not own.is_usable():
            raise InvalidKey
        if Scope.MANAGE_KEYS not in own.scopes:
            raise MissingScope
        return act(own, *given, **named)


def _list(own: ApiKey) -> list[dict[str, Any]]:
    return [_shown(key) for key in _keys_beside(own)[:MOST_LISTED]]


def _create(own: ApiKey, asked: NewKey) -> dict[str, Any]:
    _check_scopes(own, asked.scopes)
    if asked.all_agents and not own.all_agents:
        raise MissingScope("This API key does not open every agent, so it makes no key that does. Name agents instead.")
    expires_at = None if asked.expires_in_s is None else datetime.now(UTC) + timedelta(seconds=asked.expires_in_s)
    issued = issue_key(
        own.owner,
        name=asked.name,
        scopes=asked.scopes,
        agents=_agents(own, asked.agents),
        all_agents=asked.all_agents,
        expires_at=_no_later(own, expires_at),
        maker=own,
    )
    return _with_secret(issued)


def _rotate(own: ApiKey, asked: tuple[str, Rotation]) -> dict[str, Any]:
    id, rotation = asked
    key = _find(own, id)
    _check_scopes(own, key.scopes)
    if not own.all_agents and (key.all_agents or not _slugs(key) <= _slugs(own)):
        raise MissingScope("That key opens agents that this one does not. Rotate it with one that does, or ask an operator.")
    issued = rotate_key(key, overlap=timedelta(seconds=rotation.overlap_s), maker=own)
    # `own` is as it was before, also where it rotated itself.
    if issued.key.expiry_date != (ends_at := _no_later(own, issued.key.expiry_date)):
        issued.key.expiry_date = ends_at
        issued.key.save(update_fields=["expiry_date"])
    key.refresh_from_db()
    return _with_secret(issued) | {"old_expires_at": key.expiry_date}


def _revoke(own: ApiKey, id: str) -> dict[str, Any]:
    key = _find(own, id)
    revoke_key(key)
    return _shown(key)


def _keys_beside(own: ApiKey) -> QuerySet[ApiKey]:
    """Return all keys of the same owner, `own` included, the newest first."""
    keys: QuerySet[ApiKey] = ApiKey.objects.filter(owner_id=own.owner_id).select_related("replaces").prefetch_related("agents")
    return keys.order_by("-created", "-pk")


def _find(own: ApiKey, id: str) -> ApiKey:
    key = _keys_beside(own).filter(prefix=id).first() if "\x00" not in id else None
    if key is None:
        raise KeyNotFound
    return key


def _check_scopes(own: ApiKey, scopes: Sequence[str]) -> None:
    if lacking := sorted(set(scopes) - set(own.scopes)):
        raise MissingScope(f"This API key lacks the scope '{lacking[0]}', so it cannot give it to another. {MissingScope.remedy}")


def _agents(own: ApiKey, slugs: list[str]) -> list[Agent]:
    """Return the agents with these slugs; one that `own` does not open looks like one that does not exist."""
    opened: QuerySet[Agent] = Agent.objects.all() if own.all_agents else own.agents.all()
    found = list(opened.filter(slug__in=slugs))
    if len(found) < len(set(slugs)):
        raise AgentNotFound
    return found


def _slugs(key: ApiKey) -> set[str]:
    return {agent.slug for agent in key.agents.all()}


def _no_later(own: ApiKey, expires_at: datetime | None) -> datetime | None:
    """Return the earlier end: no key outlives the one that made it over HTTP, nor does it outlive itself by rotating."""
    return min(filter(None, (own.expiry_date, expires_at)), default=None)


def _with_secret(issued: IssuedKey) -> dict[str, Any]:
    return {"key": issued.secret, **_shown(issued.key)}


def _shown(key: ApiKey) -> dict[str, Any]:
    state = KeyState.REVOKED if key.revoked else KeyState.ACTIVE if key.is_usable() else KeyState.EXPIRED
    return {
        "id": key.prefix,
        "name": key.name,
        "state": state,
        "scopes": key.scopes,
        "agents": None if key.all_agents else sorted(_slugs(key)),
        "created_at": key.created,
        "expires_at": key.expiry_date,
        "last_used_at": key.last_used_at,
        "replaces": key.replaces.prefix if key.replaces else None,
    }
