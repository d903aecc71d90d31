"""Who is calling: an anonymous address, or an editor in the admin. API keys and end users' tokens will join them here."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import structlog
from django.conf import settings

from agents.models import Access

log = structlog.get_logger(__name__)

_MADE_HERE: Final = "s_"
_ID_BYTES: Final = 16
_MAC_BYTES: Final = 9


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `owner` is the namespace in which the names they choose live."""

    owner: str
    is_editor: bool = False

    def may_use(self, access: str) -> bool:
        return self.is_editor or access == Access.PUBLIC


def anonymous(address: str) -> Caller:
    """Return the caller at `address`; the address itself is never stored, only a keyed hash of it."""
    return Caller(owner=f"anonymous:{_hash(b'address', address)}")


def editor(user_id: int) -> Caller:
    """Return somebody who tries a draft in the admin: may use every agent, and has sessions of their own."""
    return Caller(owner=f"editor:{user_id}", is_editor=True)


def resolve_session(caller: Caller, session_id: str | None) -> tuple[str, str]:
    """Return the owner and the id of the session that `caller` means.

    Ids made here carry proof of it, and work from any address: they cannot be guessed. Names that anonymous callers choose
    live in their address's namespace, so nobody reads a stranger's `user-123`.
    """
    if session_id is None:
        random_part = _MADE_HERE + base64.urlsafe_b64encode(secrets.token_bytes(_ID_BYTES)).rstrip(b"=").decode()
        session_id = f"{random_part}.{_hash(b'session', random_part)}"
        return _owner_of_made(caller), session_id
    random_part, _, proof = session_id.rpartition(".")
    if random_part.startswith(_MADE_HERE) and _proves(proof, random_part):
        return _owner_of_made(caller), session_id
    return caller.owner, session_id


def client_address(peer: str, forwarded_for: str) -> str:
    """Return the address of the client: the last one in X-Forwarded-For that no trusted proxy added, else the peer itself.

    Only what trusted proxies wrote is believed, so a client gains nothing by sending the header.
    """
    address = _plain(peer) or peer
    if forwarded_for and not settings.TRUSTED_PROXIES and settings.ENVIRONMENT_NAME != "development" and _is_nearby(address):
        _warn_of_unnamed_proxy()
    for hop in reversed(forwarded_for.split(",") if forwarded_for else []):
        if not _is_trusted_proxy(address, tuple(settings.TRUSTED_PROXIES)):
            break
        forwarded = _plain(hop.strip())
        if not forwarded:
            break
        address = forwarded
    return address


def _owner_of_made(caller: Caller) -> str:
    return caller.owner if caller.is_editor else "anonymous"


def _plain(hop: str) -> str:
    """Return the address in `hop` as such: without the port that some proxies add, and IPv4 as IPv4; "" where there is none.

    A server that listens on [::] sees IPv4 peers as ::ffff:192.0.2.1.
    """
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        ip = ipaddress.ip_address(hop)
    except ValueError:
        return ""
    return str(getattr(ip, "ipv4_mapped", None) or ip)


@lru_cache(maxsize=4096)
def _is_nearby(address: str) -> bool:
    """Whether `address` is on this host or a network that is not the internet: where proxies are."""
    try:
        return not ipaddress.ip_address(address).is_global
    except ValueError:
        return address == ""  # over a Unix socket


@cache  # once per process: every request would say the same
def _warn_of_unnamed_proxy() -> None:
    log.warning(
        "a proxy is in front that TRUSTED_PROXIES does not name",
        effect="All callers behind it count as one address.",
        remedy="Set TRUSTED_PROXIES to the proxy's network, such as 10.0.0.0/8.",
    )


@lru_cache(maxsize=4096)
def _is_trusted_proxy(address: str, networks: Sequence[str]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address == "" and bool(networks)  # a proxy on the same host, over a Unix socket
    return any(ip in ipaddress.ip_network(network, strict=False) for network in networks)


def _proves(proof: str, random_part: str) -> bool:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return any(hmac.compare_digest(proof.encode(), _hash(b"session", random_part, secret_key=str(key)).encode()) for key in keys)


def _hash(purpose: bytes, text: str, *, secret_key: str = "") -> str:
    key = purpose + b":" + (secret_key or settings.SECRET_KEY).encode()
    return base64.urlsafe_b64encode(hmac.digest(key, text.encode(errors="surrogatepass"), "sha256")[:_MAC_BYTES]).decode()
