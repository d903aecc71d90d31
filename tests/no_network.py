"""Nothing outside this machine can be reached from a test: the test process is treated like one without a network."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from typing import Any
from urllib.parse import urlsplit


def cut_off() -> None:
    """Refuse connections and name look-ups beyond loopback and the configured stores, for the rest of this process."""
    allowed = {"localhost", *(urlsplit(os.environ.get(name, "")).hostname or "localhost" for name in ("DATABASE_URL", "REDIS_URL"))}

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo" and not _is_near(arguments[0], allowed):
            raise socket.gaierror(socket.EAI_NONAME, f"tests have no network: {arguments[0]}")
        if event == "socket.connect" and isinstance(arguments[1], tuple) and not _is_near(arguments[1][0], allowed):
            raise OSError(errno.ENETUNREACH, f"tests have no network: {arguments[1]}")

    sys.addaudithook(watch)


def _is_near(host: str | bytes | None, allowed: set[str]) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if not name or name in allowed:
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or name in _addresses(allowed)


def _addresses(names: set[str]) -> set[str]:
    found = set()
    for name in names:
        try:
            found |= {str(result[4][0]) for result in socket.getaddrinfo(name, None)}
        except socket.gaierror:
            continue
    return found
