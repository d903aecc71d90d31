"""From what a client sends to who it is."""

from __future__ import annotations

from typing import Final

from agents.access.callers import Caller
from agents.access.keyring import key_ring
from agents.access.tokens import PREFIX, narrow, read_token

_SCHEME: Final = "bearer "


async def caller_with(authorization: str) -> Caller:
    """Return who sends this value of the header `Authorization`: `Bearer` with an API key or an end user's token.

    Raises:
        InvalidKey: whatever is wrong with it.
        OperationalError: the key is not known here, and the database cannot be asked.
    """
    credential = authorization[len(_SCHEME) :] if authorization[: len(_SCHEME)].lower() == _SCHEME else ""
    if not credential.startswith(PREFIX):
        return await key_ring.caller_with(credential)
    claims = read_token(credential)
    key = await key_ring.find(claims.key_id)
    return narrow(key.caller, claims)
