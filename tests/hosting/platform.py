"""A hosting platform in small: runs the lines of the Procfile, and leads callers to the web processes that are ready."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from chatbot_site.settings.environment import PROJECT_DIR
from tests.ports import free_port
from tests.waiting import eventually

PROCFILE = dict(line.split(": ", 1) for line in (PROJECT_DIR / "Procfile").read_text().splitlines())
# What the platform's proxy adds: it ended TLS.
HEADERS = {"Host": "bots.example.com", "X-Forwarded-Proto": "https", "X-Real-IP": "203.0.113.7"}


@dataclass
class Started:
    """A process of the platform's, by its line in the Procfile."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def is_ready(self) -> bool:
        """Ask as Railway does: over plain HTTP, by a name of its own."""
        assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
        url = f"http://127.0.0.1:{self.port}/health/ready"
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(url, headers={"Host": "healthcheck.railway.app"}, timeout=30, trust_env=False).status_code == 200
        return False

    def terminate(self) -> None:
        """Ask it to stop, as a platform does before it kills it."""
        self.process.send_signal(signal.SIGTERM)


class Platform:
    """Starts processes in one environment; `stop` kills what is left of them."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = dict(environment)
        self._folder = folder
        self._started: list[Started] = []

    def release(self) -> str:
        """Run the `release` line to its end, and return what it said."""
        done = subprocess.run(
            ["sh", "-c", PROCFILE["release"]], cwd=PROJECT_DIR, env=self.environment, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, line: str) -> Started:
        """Start a process of the Procfile, without waiting for it."""
        port = free_port()
        log = self._folder / f"{line}-{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                shlex.split(PROCFILE[line]),
                cwd=PROJECT_DIR,
                env=self.environment | {"PORT": str(port)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(Started(process, port, log))
        return self._started[-1]

    def start_web(self) -> Started:
        """Start a web process and wait until it is ready."""
        web = self.start("web")
        eventually(web.is_ready, what="the web process is ready", timeout_s=120, every_s=0.1)
        return web

    def stop(self) -> None:
        for started in self._started:
            if started.process.poll() is None:
                started.process.kill()
                started.process.wait()

    def logs(self) -> str:
        return "\n".join(started.log.read_text() for started in self._started)


@contextlib.contextmanager
def platform(environment: Mapping[str, str], folder: Path) -> Iterator[Platform]:
    running = Platform(environment, folder)
    try:
        yield running
    finally:
        running.stop()


class Balancer:
    """A TCP proxy that gives new connections to its targets in turn, and leaves those that are open where they are."""

    def __init__(self, targets: list[Started]) -> None:
        self.targets = targets
        self._turn = itertools.count()

    async def __aenter__(self) -> Balancer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self.targets[next(self._turn) % len(self.targets)]
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", target.port)
        except OSError:
            writer.transport.abort()
            return
        with contextlib.suppress(asyncio.CancelledError):  # the proxy is stopped
            await asyncio.gather(_pass_on(reader, ours), _pass_on(theirs, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
