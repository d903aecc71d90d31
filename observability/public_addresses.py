"""Which addresses are on the public internet. Imports nothing but the standard library: the courier of alerts starts with it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
_6TO4: Final = ipaddress.ip_network("2002::/16")
# IETF protocol assignments: no servers for others there, but clouds keep metadata in it. Older Pythons call most of it global.
_PROTOCOL_ASSIGNMENTS: Final = ipaddress.ip_network("192.0.0.0/24")


def is_public(address: str) -> bool:
    """Tell whether `address` (a literal IPv4 or IPv6 address) is on the public internet, seen through IPv6 wrappings of IPv4.

    Raises:
        ValueError: `address` is no literal address.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped or ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        # 6to4 and Teredo wrap an IPv4 address too, but nobody serves from one any more: those are not public either.
        if ip not in _GLOBAL_UNICAST or ip in _6TO4:
            return False
    return ip.is_global and not ip.is_multicast and ip not in _PROTOCOL_ASSIGNMENTS


def is_listed(host: str, port: int, *, allowed: Iterable[str]) -> bool:
    """Tell whether `allowed`, as OUTBOUND_ALLOWED_HOSTS, names `host` or `host:port`."""
    bracketed = f"[{host}]" if ":" in host else host
    return not {host.lower(), bracketed.lower(), f"{bracketed}:{port}".lower()}.isdisjoint(map(str.lower, allowed))
