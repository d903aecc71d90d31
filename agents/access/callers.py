"""Callers: what they may do, and whose sessions and users they mean."""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from django.conf import settings

from agents.models import Access
from observability.errors import ChatbotError, Unauthorized

_MADE_HERE: Final = "s_"
_ID_BYTES: Final = 16
_MAC_BYTES: Final = 9


class MissingScope(ChatbotError):
    """The key is valid, but not for this."""

    code = "missing-scope"
    status = 403
    title = "The key may not do this"
    remedy = "Use a key that has the scope, or ask an operator to give it to this one."


class OtherUser(ChatbotError):
    """An end user's token names somebody else."""

    code = "other-user"
    status = 403
    title = "The token is another user's"
    remedy = "Leave the user out or name the one the token was issued for."


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may.

    Attributes:
        owner: the namespace in which the names they choose live, of sessions and of users.
        key_id: the public id of their API key; "" for those without one.
        scopes: values of `agents.models.Scope`.
        agents: the slugs of the agents that the key may use; not asked where `all_agents`.
        user: the only user whom they may name, where a token binds them to one.
    """

    owner: str
    is_editor: bool = False
    key_id: str = ""
    scopes: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()
    all_agents: bool = False
    user: str = ""

    def may_use(self, agent: str, *, access: str = Access.KEY) -> bool:
        """Whether the caller may use the agent `agent`, open to `access`. A key opens the agents it names, and no others."""
        if self.key_id:
            return self.all_agents or agent in self.agents
        return self.is_editor or access == Access.PUBLIC


def anonymous(address: str) -> Caller:
    """Return the caller at `address`; the address itself is never stored, only a keyed hash of it."""
    return Caller(owner=_owner_at(address, settings.SECRET_KEY))


@lru_cache(maxsize=4096)
def _owner_at(address: str, secret_key: str) -> str:
    return f"anonymous:{_hash(b'address', address, secret_key=secret_key)}"


def editor(user_id: int) -> Caller:
    """Return somebody who tries a draft in the admin: may use every agent, and has sessions of their own."""
    return Caller(owner=f"editor:{user_id}", is_editor=True)


def require_scope(caller: Caller, scope: str) -> None:
    """Let `caller` pass who has the scope.

    Raises:
        Unauthorized: no key or token was sent.
        MissingScope: the one that was sent lacks the scope.
    """
    if not caller.key_id:
        raise Unauthorized(f"This needs an API key with the scope '{scope}'. Send it as 'Authorization: Bearer …'.")
    if scope not in caller.scopes:
        who = "This token" if caller.user else "This API key"
        raise MissingScope(f"{who} lacks the scope '{scope}'. {MissingScope.remedy}")


def user_named(caller: Caller, name: str | None) -> str:
    """Return the user that a request is about, "" where it names none: the one in the token, or whom the key's holder names.

    Raises:
        Unauthorized: somebody without a key names a user.
        OtherUser: a token was issued for another user.
    """
    if name is None:
        return caller.user
    if not caller.key_id:
        raise Unauthorized("Naming a user needs an API key. Leave 'user' out to chat anonymously.")
    if caller.user and name != caller.user:
        raise OtherUser
    return name


def resolve_session(caller: Caller, session_id: str | None) -> tuple[str, str]:
    """Return the owner and the id of the session that `caller` means.

    Ids made here carry proof of it, and work from any address: they cannot be guessed. Names that anonymous callers choose
    live in their address's namespace, so nobody reads a stranger's `user-123`. Sessions of a key stay its owner's.
    """
    if session_id is None:
        random_part = _MADE_HERE + base64.urlsafe_b64encode(secrets.token_bytes(_ID_BYTES)).rstrip(b"=").decode()
        session_id = f"{random_part}.{_hash(b'session', random_part)}"
        return _owner_of_made(caller), session_id
    random_part, _, proof = session_id.rpartition(".")
    if random_part.startswith(_MADE_HERE) and _proves(proof, random_part):
        return _owner_of_made(caller), session_id
    return caller.owner, session_id


def subject_name(caller: Caller, *, user: str, session_id: str) -> str:
    """Return whom a turn is about, in `caller`'s namespace: the user where one is named, else the session.

    No user's name has a slash, so a key's sessions never meet its users, whatever a session is called.
    """
    return user or (f"session/{session_id}" if caller.key_id else session_id)


def _owner_of_made(caller: Caller) -> str:
    return caller.owner if caller.is_editor or caller.key_id else "anonymous"


def _proves(proof: str, random_part: str) -> bool:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return any(hmac.compare_digest(proof.encode(), _hash(b"session", random_part, secret_key=str(key)).encode()) for key in keys)


def _hash(purpose: bytes, text: str, *, secret_key: str = "") -> str:
    key = purpose + b":" + (secret_key or settings.SECRET_KEY).encode()
    return base64.urlsafe_b64encode(hmac.digest(key, text.encode(errors="surrogatepass"), "sha256")[:_MAC_BYTES]).decode()
