"""Who is calling, and what they may do.

    Caller             who asks: an address, an editor, an API key, or an end user by a token
        .owner         the namespace of the users and sessions that they name: `Subject(owner, name)`
        .key_id        the key's public id, "" without a key
        .user          the only user that this caller may name; "" with a key itself, which may name any
        .may_use(agent, access=…)
    require_scope(caller, Scope.…)     401 without a key, 403 with one that lacks the scope
    user_named(caller, name)           the user that a request is about: 401 without a key, 403 where a token is of another
    caller_with(authorization)         who sends this header: an API key or a token

A door turns its request into a `Caller` (`agents.rest.authentication.caller_of`) and hands it down; nothing below sees a header.
"""

from .addresses import client_address
from .callers import Caller, MissingScope, OtherUser, anonymous, editor, require_scope, resolve_session, subject_name, user_named
from .credentials import caller_with
from .keyring import InvalidKey, key_ring

__all__ = [
    "Caller",
    "InvalidKey",
    "MissingScope",
    "OtherUser",
    "anonymous",
    "caller_with",
    "client_address",
    "editor",
    "key_ring",
    "require_scope",
    "resolve_session",
    "subject_name",
    "user_named",
]
