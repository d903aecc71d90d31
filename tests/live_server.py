"""The real server for tests: gunicorn with its ASGI worker over `chatbot_site.asgi`, as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

PROJECT_DIR = Path(__file__).resolve().parent.parent
START_S = 120.0
WORKER = "chatbot_site.webworker.WebWorker"
METRICS_TOKEN = "of-tests"
"""What servers of tests ask for at /metrics."""


class LiveServer:
    """Runs until `stop`. Its output goes to `log_path`; a failing test prints what was written during it.

    Args:
        environment: what differs from this process's environment; DATABASE_URL and REDIS_URL at least.
        workers: how many worker processes.
    """

    def __init__(self, *, environment: Mapping[str, str], workers: int = 1) -> None:
        descriptor, name = tempfile.mkstemp(prefix="live-server-", suffix=".log")
        self.log_path = Path(name)
        # The socket is bound here and handed over, so that no two servers ever race for a port.
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
            self.port: int = listener.getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "chatbot_site.asgi:application", "--worker-class", WORKER),
                    *("--workers", str(workers), "--bind", f"fd://{listener.fileno()}", "--no-control-socket"),
                ],
                cwd=PROJECT_DIR,
                env={
                    **os.environ,
                    "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test",
                    "OUTBOUND_ALLOWED_HOSTS": "127.0.0.1",
                    "ENV_FILE": os.devnull,
                    "LOG_LEVEL": "INFO",
                    "METRICS_TOKEN": METRICS_TOKEN,
                    "PYTHONUNBUFFERED": "1",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
            )
        os.close(descriptor)

    def wait_until_healthy(self) -> None:
        """Return once /health answers.

        Raises:
            RuntimeError: it does not within `START_S`; carries the log's end.
        """
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with status {self._process.returncode}:\n{self.log()[-6000:]}")
            try:
                if httpx2.get(f"{self.url}/health", timeout=10, trust_env=False).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"the server did not answer /health within {START_S} s:\n{self.log()[-6000:]}")

    @property
    def workers(self) -> list[psutil.Process]:
        """The worker processes, without gunicorn's arbiter."""
        return psutil.Process(self._process.pid).children()

    def log(self, *, since: int = 0) -> str:
        """Return what the server wrote, from byte `since` on."""
        return self.log_path.read_bytes()[since:].decode(errors="replace")

    def client(self, **options: object) -> httpx2.Client:
        """Return an HTTP client bound to this server."""
        return httpx2.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def async_client(self, **options: object) -> httpx2.AsyncClient:
        """Return an async HTTP client bound to this server, with as many connections as are asked for."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx2.AsyncClient(base_url=self.url, timeout=120, trust_env=False, limits=limits, **options)

    def ask_to_stop(self) -> None:
        """Send SIGTERM, as a host does before a release."""
        self._process.send_signal(signal.SIGTERM)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, *, timeout_s: float = 60) -> None:
        self.ask_to_stop()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            for process in [*self.workers, self._process]:
                process.kill()
            self._process.wait()
            raise
        finally:
            self.log_path.unlink(missing_ok=True)


@contextmanager
def live_server(*, environment: Mapping[str, str], workers: int = 1) -> Iterator[LiveServer]:
    """Run a server for the length of the block; it answers /health when the block begins."""
    server = LiveServer(environment=environment, workers=workers)
    try:
        server.wait_until_healthy()
        yield server
    finally:
        server.stop()
