"""The client's address: what a trusted proxy wrote, and nothing that anybody else can send."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import cache, lru_cache

import structlog
from django.conf import settings

log = structlog.get_logger(__name__)


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


@lru_cache(maxsize=4096)
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
