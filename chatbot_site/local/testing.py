"""`make test` and what `make check` shares with it: throw-away services, and an environment without the developer's own."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from chatbot_site.settings.environment import PROJECT_DIR, Environment
from chatbot_site.tokenizer import place_ranks

from .chromium import ensure_chromium
from .debian import ensure_program
from .folder import DataFolder
from .processes import Interrupts, StopRequested
from .running import start_services
from .supervisor import Supervisor, say

WORKERS: Final = 4
"""More of them would wait for the one PostgreSQL."""


def test(interrupts: Interrupts, arguments: Sequence[str]) -> int:
    """Run pytest with `arguments`; return its exit code."""
    chromium = ensure_chromium()
    ensure_program("pgbouncer", package="pgbouncer", tests="the transaction pooler")
    ensure_program("prometheus", package="prometheus", tests="metrics and alert rules")
    with throw_away_services(interrupts) as env:
        workers = max(2, min(WORKERS, os.cpu_count() or 2))
        command = [sys.executable, "-m", "pytest", "-n", str(workers), *arguments]
        say(f"Running {shlex.join(command[1:])}")
        return foreground(command, env=env | {"CHROMIUM": chromium}, interrupts=interrupts)


@contextlib.contextmanager
def throw_away_services(interrupts: Interrupts) -> Iterator[dict[str, str]]:
    """Start a PostgreSQL and a Valkey whose data are lost at the end; yield the environment for programs that use them.

    TEST_DATABASE_URL and TEST_REDIS_URL name others to use instead.
    """
    path = Path(tempfile.mkdtemp(prefix="chatbot-test-"))
    try:
        folder = DataFolder(path)
        folder.open(interrupts)
        own = Environment.model_construct(
            database_url=os.environ.get("TEST_DATABASE_URL", ""), redis_url=os.environ.get("TEST_REDIS_URL", ""), data_dir=path
        )
        with Supervisor(folder, interrupts=interrupts, project=PROJECT_DIR) as supervisor:
            env = clean_environment() | start_services(supervisor, own, durable=False)
            yield env | {
                "DATA_DIR": str(path),
                "TIKTOKEN_CACHE_DIR": str(place_ranks(path / "tokenizer")),
                "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test",
                "ENV_FILE": os.devnull,
            }
    finally:
        with contextlib.suppress(OSError):  # as root, the database may lie where its user can reach it
            shutil.rmtree((path / "postgresql.elsewhere").read_text().strip())
        shutil.rmtree(path, ignore_errors=True)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without anything that this project's settings read."""
    ours = {"DJANGO_SETTINGS_MODULE", "ENV_FILE", *(name.upper() for name in Environment.model_fields)}
    return {name: value for name, value in os.environ.items() if name.upper() not in ours and not name.startswith(("TEST_", "OPENAI_"))}


def foreground(command: Sequence[str], *, env: dict[str, str], interrupts: Interrupts) -> int:
    """Run `command` on the terminal, which gives its Ctrl-C to both; return its exit code.

    Raises:
        StopRequested: a signal came; the command was stopped.
    """
    with subprocess.Popen(command, cwd=PROJECT_DIR, env=env) as process:
        try:
            interrupts.wait_for(lambda: process.poll() is not None, timeout_s=float("inf"))
        except StopRequested:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
        return process.returncode
