"""Who sends a request: the header `Authorization`, or an address."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.request import Request

from agents.access import Caller, anonymous, caller_with, client_address


async def caller_of(request: Request | HttpRequest) -> Caller:
    """Return who is calling: the holder of a key, the user of a token, or whoever is at an address.

    Raises:
        InvalidKey: an Authorization header was sent that holds no valid key or token.
        OperationalError: the key is not known here, and the database cannot be asked.
    """
    authorization = request.headers.get("Authorization")
    if authorization is not None:
        return await caller_with(authorization)
    return anonymous(address_of(request))


def address_of(request: Request | HttpRequest) -> str:
    """Return the address of the client, as far as trusted proxies tell of it."""
    return client_address(request.META.get("REMOTE_ADDR", ""), request.META.get("HTTP_X_FORWARDED_FOR", ""))
