"""gunicorn on localhost, as `make run` starts it; a production host starts the Procfile's `web` line."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .processes import Program
from .refusal import Refusal

LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
GRACEFUL_S: Final = 3
"""Somebody who pressed Ctrl-C waits no longer than this for open streams."""


def usable_addresses(port: int) -> list[str]:
    """Return gunicorn's `--bind` values for localhost: IPv4, and IPv6 where the machine has it.

    Raises:
        Refusal: the port is in use, or only root may listen on it.
    """
    addresses = []
    for family, host in LOOPBACK:
        try:
            with socket.socket(family) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, port))
            if _somebody_answers(family, host, port):  # on macOS one may bind beside a listener on all addresses
                raise OSError(errno.EADDRINUSE, "in use")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Refusal(f"Port {port} is in use. Stop what uses it, or choose another: make run PORT={_next(port)}") from None
            if error.errno in (errno.EACCES, errno.EPERM):
                raise Refusal(f"Only root may listen on port {port}. Choose one above 1023: make run PORT=8000") from None
            continue  # this machine has no such address
        addresses.append(f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}")
    if not addresses:
        raise Refusal("This machine has no loopback network (127.0.0.1). Bring it up: ip link set lo up")
    return addresses


def _somebody_answers(family: int, host: str, port: int) -> bool:
    with socket.socket(family) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def _next(port: int) -> int:
    return port + 1 if port < 65535 else 8000


def program(addresses: list[str], *, project: Path, env: Mapping[str, str]) -> Program:
    """Return gunicorn, to be started; it writes to the terminal."""
    command: list[str | Path] = [sys.executable, "-m", "gunicorn", "chatbot_site.asgi:application", "-c", "gunicorn.conf.py"]
    command += ["--graceful-timeout", str(GRACEFUL_S), "--log-level", "warning"]
    for address in addresses:
        command += ["--bind", address]
    host, _, port = addresses[0].rpartition(":")

    def is_ready() -> bool:
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=5)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/health", headers={"Host": "localhost"})
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    return Program(
        name="webserver",
        title="The web server",
        command=command,
        cwd=project,
        env=env,
        ready=is_ready,
        patience_s=GRACEFUL_S + 5,
    )
