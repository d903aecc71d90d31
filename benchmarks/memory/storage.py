"""What the benchmark runs on: a database and an embedder of its own, and Django set up on both in this process."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from benchmarks.chat.stores import stores
from chatbot_site.settings.environment import PROJECT_DIR
from chatbot_site.tokenizer import place_ranks

_START_S = 60.0
# What decides how texts are embedded: here the built-in embedder does, whatever the environment says.
_EMBEDDING = ("BASE_URL", "API_KEY", "MODEL", "DIMENSIONS")
_NOT_INHERITED = (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    *(f"{prefix}_{name}" for prefix in ("EMBEDDING", "EMBEDDING_NEXT") for name in _EMBEDDING),
)


@contextmanager
def scratch(*, embedder: Mapping[str, str] | None = None) -> Iterator[None]:
    """Set Django up on a fresh, migrated database with the built-in embedder; drop the one and stop the other in the end.

    Args:
        embedder: the environment that names another embedder.

    Raises:
        chatbot_site.local.refusal.Refusal: no database server can be used or started.
        RuntimeError: the embedder does not start.
    """
    with ExitStack() as stack:
        database_url, redis_url = stack.enter_context(stores())
        for name in _NOT_INHERITED:
            os.environ.pop(name, None)
        data = Path(os.environ.get("DATA_DIR") or PROJECT_DIR / ".data")
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test",
            "ENV_FILE": os.devnull,
            "LOG_LEVEL": "WARNING",
            "DATABASE_URL": stack.enter_context(_database(database_url)),
            "REDIS_URL": redis_url,
            **(embedder or {"EMBEDDER_URL": stack.enter_context(_embedder())}),
            "TIKTOKEN_CACHE_DIR": str(place_ranks(Path(os.environ.get("TIKTOKEN_CACHE_DIR") or data / "tokenizer"))),
            "MEMORY_DEADLINE_MS": "10000",  # what is measured is quality: a busy machine must not change it
        }
        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        call_command("migrate", verbosity=0)
        stack.callback(connections.close_all)
        yield


@contextmanager
def _database(server_url: str) -> Iterator[str]:
    name = f"benchmark_{secrets.token_hex(4)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _embedder() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "memory.embedders.builtin", str(port)], cwd=PROJECT_DIR)
    try:
        deadline = time.monotonic() + _START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("The built-in embedder did not start; run `make test` once, which installs it.")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
    except OSError:
        return False
