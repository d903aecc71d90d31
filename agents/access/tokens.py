"""Tokens for end users: what a key's holder hands to a browser instead of the key.

A token is signed and stored nowhere. It names one user, and ends with its time or with its key, whichever is first: revoking
the key ends all its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from django.core import signing

from agents.access.callers import Caller
from agents.access.keyring import InvalidKey
from agents.models import Scope

PREFIX: Final = "ut_"
LONGEST_S: Final = 24 * 3600
DEFAULT_S: Final = 3600
SCOPES: Final = frozenset({Scope.CHAT.value, Scope.MANAGE_MEMORIES.value})
"""What an end user may ever do."""
_MOST_CHARS: Final = 8000
_SALT: Final = "agents.access.tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says. `agents` is None for all those of its key."""

    key_id: str
    user: str
    scopes: frozenset[str]
    agents: frozenset[str] | None
    expires_at: datetime


def sign_token(claims: Claims) -> str:
    """Return `claims` as a text that only this server can make."""
    said: dict[str, Any] = {
        "k": claims.key_id,
        "u": claims.user,
        "s": sorted(claims.scopes),
        "a": None if claims.agents is None else sorted(claims.agents),
        "e": int(claims.expires_at.timestamp()),
    }
    return PREFIX + _signer().sign_object(said)


def read_token(token: str) -> Claims:
    """Return what `token` says.

    Raises:
        InvalidKey: it was not made here, or its time is over.
    """
    if len(token) > _MOST_CHARS:
        raise InvalidKey
    try:
        said = _signer().unsign_object(token.removeprefix(PREFIX))
    except (signing.BadSignature, ValueError):
        raise InvalidKey from None
    expires_at = datetime.fromtimestamp(said["e"], UTC)
    if expires_at <= datetime.now(UTC):
        raise InvalidKey
    agents = None if said["a"] is None else frozenset(said["a"])
    return Claims(key_id=said["k"], user=said["u"], scopes=frozenset(said["s"]), agents=agents, expires_at=expires_at)


def narrow(caller: Caller, claims: Claims) -> Caller:
    """Return the end user of `claims` as a caller: never more than what `caller`, the token's key, may do now."""
    narrowed = replace(caller, user=claims.user, scopes=caller.scopes & claims.scopes & SCOPES)
    if claims.agents is None:
        return narrowed
    return replace(narrowed, all_agents=False, agents=claims.agents if caller.all_agents else claims.agents & caller.agents)


def _signer() -> signing.Signer:
    # Made anew, as it takes SECRET_KEY and its fallbacks; a full stop, unlike a colon, may stand in a Bearer token.
    return signing.Signer(salt=_SALT, sep=".")
