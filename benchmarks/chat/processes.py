"""The parties of a benchmark as processes: the upstream, the load, the server under test."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import cast

import psutil

from .load import DRAIN_S, Job, Result

PROJECT_DIR = Path(__file__).resolve().parent.parent.parent
START_S = 30.0


class UpstreamProcess:
    """The model that costs nothing, on a port of its own."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-m", "benchmarks.chat.upstream", str(port)]
        self._process = subprocess.Popen(command, cwd=PROJECT_DIR, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The upstream did not start; is port {port} taken? Choose another with --upstream-port.")
        self.port = int(line)
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def pace(self, *, delay_ms: float, chunk_ms: float = 0) -> None:
        """Set how long it waits before each answer and between a stream's chunks."""
        self._control({"delay_ms": delay_ms, "chunk_ms": chunk_ms})

    def calls(self) -> int:
        """Return how often it was asked so far."""
        return int(self._control({})["calls"])

    def _control(self, order: dict[str, float]) -> dict[str, int]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/control", data=json.dumps(order).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
            return cast("dict[str, int]", json.load(answer))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class LoadProcess:
    """The clients. One job at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.chat.load"]
        self._process = subprocess.Popen(command, cwd=PROJECT_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def drive(self, job: Job) -> Result:
        """Do a job to its end."""
        self.begin(job)
        return self.result()

    def begin(self, job: Job) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()

    def wait_until_open(self) -> None:
        """Wait for the line of `Job.announce_when_open`."""
        line = self._line()
        assert line == "open", line

    def result(self) -> Result:
        return Result(**json.loads(self._line()))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"The load process ended; a job takes at most its time and {DRAIN_S} s.")
        return line


class ServerProcess:
    """This project's server as production runs it, with one worker; or another ASGI application, run in the same way."""

    def __init__(self, environment: dict[str, str], *, application: str = "chatbot_site.asgi:application") -> None:
        self._log = Path(tempfile.mkstemp(prefix="benchmark-server-", suffix=".log")[1])
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener, self._log.open("wb") as log:
            self.port: int = listener.getsockname()[1]
            started = time.perf_counter()
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", application, "-c", "gunicorn.conf.py"),
                    *("--workers", "1", "--bind", f"fd://{listener.fileno()}"),
                ],
                cwd=PROJECT_DIR,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
            )
        self._wait_until_healthy()
        self.start_s = time.perf_counter() - started
        """From the command until /health answers."""

    @property
    def worker(self) -> psutil.Process:
        """The worker, without gunicorn's arbiter."""
        return psutil.Process(self._process.pid).children()[0]

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            for worker in psutil.Process(self._process.pid).children():
                worker.kill()
            self._process.kill()
            self._process.wait()
        self._log.unlink()

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.005)
        log = self._log.read_text(errors="replace")[-4000:]
        self._process.kill()
        raise RuntimeError(f"The server did not start within {START_S:.0f} s. Its log ends:\n{log}")


def server_environment(*, database_url: str, redis_url: str) -> dict[str, str]:
    """Return a production environment for a server that may call the upstream on loopback."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.prod",
        "SECRET_KEY": secrets.token_urlsafe(60),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "ALLOWED_HOSTS": "127.0.0.1",
        "OUTBOUND_ALLOWED_HOSTS": "127.0.0.1",
        "SECURE_SSL_REDIRECT": "false",
        "WEB_CONCURRENCY": "1",
        "ANONYMOUS_REQUESTS_PER_MINUTE": "0",
        "ENV_FILE": os.devnull,
    }


@contextmanager
def affinity(core: int | None) -> Iterator[None]:
    """Run on `core` for the length of the block; processes started in it stay there."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
