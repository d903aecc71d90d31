"""Who sends a request: the header `Authorization`, or an address."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request

from agents.access import Caller, anonymous, caller_with, client_address
from observability.logs import note


async def caller_of(request: Request | HttpRequest) -> Caller:
    """Return who is calling: the holder of a key, the user of a token, or whoever is at an address.

    Raises:
        InvalidKey: an Authorization header was sent that holds no valid key or token.
        OperationalError: the key is not known here, and the database cannot be asked.
    """
    authorization = request.META.get("HTTP_AUTHORIZATION")
    if authorization is not None:
        caller = await caller_with(authorization)
        note(key=caller.key_id)
        return caller
    return anonymous(address_of(request))


def address_of(request: Request | HttpRequest) -> str:
    """Return the address of the client, as far as trusted proxies tell of it."""
    told = request.META.get("HTTP_" + settings.CLIENT_ADDRESS_HEADER.upper().replace("-", "_"), "")
    return client_address(request.META.get("REMOTE_ADDR", ""), told)
