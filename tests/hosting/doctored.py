"""A server for the doctor to look at, with stores of its own that a test breaks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

from chatbot_site.local.valkey import packaged_server
from chatbot_site.settings.environment import PROJECT_DIR
from tests.ports import free_port
from tests.waiting import eventually


@dataclass
class Report:
    """What the doctor said."""

    returncode: int
    results: dict[str, dict[str, Any]]
    output: str

    @property
    def failures(self) -> set[str]:
        return {name for name, result in self.results.items() if result["grade"] == "failed"}

    @property
    def warnings(self) -> set[str]:
        return {name for name, result in self.results.items() if result["grade"] == "warning"}

    def says(self, name: str, *, grade: str, seen: str, remedy: str) -> bool:
        """Tell whether this was found, with the remedy; a failure shows the whole report."""
        result = self.results.get(name, {})
        said = result.get("grade") == grade and seen in result["seen"] and remedy in result["remedy"]
        assert said, f"{name}: {result}\n{self.output}"
        return True


@dataclass
class Patient:
    """A server that is not started. `environment` is what its processes would have; `break_database` runs statements in its database."""

    environment: dict[str, str]
    secrets: list[str] = field(default_factory=list)

    @property
    def database_url(self) -> str:
        return self.environment["DATABASE_URL"]

    def with_database(self, *, port: int | None = None, name: str = "", user: str = "") -> str:
        """Return the database's URL with another name, another `user:password`, or another port of this machine."""
        parts = urlsplit(self.database_url)
        account, _, host = parts.netloc.rpartition("@")
        place = f"127.0.0.1:{port}" if port else host
        return urlunsplit(parts._replace(netloc=f"{user or account}@{place}", path=f"/{name}" if name else parts.path))

    def execute(self, *statements: str, values: tuple[Any, ...] = ()) -> None:
        """Run statements in the database, each by itself."""
        with psycopg.connect(self.database_url, autocommit=True) as database:
            for statement in statements:
                database.execute(statement.encode(), values or None)

    def is_examined(self, *arguments: str, limit: Callable[[], None] | None = None, **changed: str) -> Report:
        """Run the doctor as an operator would, in the environment with `changed` variables. No secret may stand in what it prints."""
        done = subprocess.run(
            [sys.executable, "manage.py", "doctor", "--json", *(arguments or ("--no-calls",))],
            cwd=PROJECT_DIR,
            env={**self.environment, **changed},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            preexec_fn=limit,
        )
        output = done.stdout + done.stderr
        assert done.stdout.startswith("{"), output
        secrets = [*self.secrets, self.environment["SECRET_KEY"], changed.get("SECRET_KEY", "")]
        assert not [secret for secret in secrets if secret and secret in output]
        results = {result["name"]: result for result in json.loads(done.stdout)["results"]}
        assert (done.returncode == 1) == any(result["grade"] == "failed" for result in results.values()), output
        return Report(done.returncode, results, output)


@contextlib.contextmanager
def valkey(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Valkey with such options, such as "--maxmemory-policy": its address and its process."""
    port = free_port()
    own = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), "--loglevel", "warning"]
    process = subprocess.Popen([packaged_server(), *own, *options], stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: _listens(port), what="Valkey answers")
        yield f"redis://127.0.0.1:{port}/0", process
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with redis.Redis(port=port) as client:
        try:
            client.ping()
        except redis.exceptions.AuthenticationError:
            return True
        except redis.exceptions.ConnectionError:
            return False
    return True
