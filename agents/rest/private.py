"""What the routes about people share: whom a path means, which agents count, and answers that nobody caches."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from django.http import HttpResponse

from agents.access import Caller, user_named
from agents.models import Agent
from agents.versions.live import AgentNotFound
from memory.api import MemoryNotFound
from observability.api import run_burst
from observability.errors import BadRequest

MOST_NAME_CHARS: Final = 128
_LARGEST_ID: Final = 2**63 - 1
_encode: Final = msgspec.json.Encoder().encode


def user_in_path(caller: Caller, user: str) -> str:
    """Return the user that a path names.

    Raises:
        BadRequest: nobody can be called so.
        OtherUser: the caller is an end user, and this is another.
    """
    if len(user) > MOST_NAME_CHARS or "\x00" in user:
        raise BadRequest(fields={"user": [f"must have 1 to {MOST_NAME_CHARS} characters"]})
    return user_named(caller, user)


def check_memory_id(memory_id: int) -> int:
    """Return an id that the database can look for.

    Raises:
        MemoryNotFound: no memory has such an id.
    """
    if memory_id > _LARGEST_ID:
        raise MemoryNotFound
    return memory_id


async def check_agent(caller: Caller, slug: str) -> str:
    """Return `slug` where it is an agent that the key opens, be it switched off or never published.

    Raises:
        AgentNotFound: it is none, or the key does not open it.
    """
    if "\x00" in slug or not caller.may_use(slug) or not await run_burst(Agent.objects.filter(slug=slug).exists):
        raise AgentNotFound
    return slug


def actor_of(caller: Caller) -> str:
    """Return how receipts and memories call who acts: by the key, never by a name."""
    return f"the user, by key {caller.key_id}" if caller.user else f"key {caller.key_id}"


def private_json(data: dict[str, Any], *, status: int = 200) -> HttpResponse:
    """Return `data` as JSON that is kept in no cache."""
    response = HttpResponse(_encode(data), content_type="application/json", status=status)
    response["Cache-Control"] = "no-store"
    return response
