"""A real PgBouncer in transaction mode, in front of a database."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pytest

from chatbot_site.local.accounts import unprivileged_account
from chatbot_site.local.debian import find_program
from tests.ports import free_port
from tests.waiting import eventually

CONNECTIONS = 4
"""To the database, however many clients there are."""
CONFIGURATION = """
[databases]
{name} = {database}
[pgbouncer]
pool_mode = transaction
default_pool_size = {connections}
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
max_client_conn = 500
"""


@contextlib.contextmanager
def pgbouncer(url: str) -> Iterator[str]:
    """Yield the URL that leads to the database of `url` through the pooler."""
    program = find_program("pgbouncer")
    if not program and os.environ.get("CI") != "true":
        pytest.skip("there is no pgbouncer here (Debian: apt-get install pgbouncer)")
    name, port = urlsplit(url).path.lstrip("/"), free_port()
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        file, log = Path(folder) / "pgbouncer.ini", Path(folder) / "log"
        file.write_text(CONFIGURATION.format(name=name, database=_as_words(url), connections=CONNECTIONS, port=port))
        account = unprivileged_account()  # it refuses to run as root
        if account:
            for path in (Path(folder), file):
                account.own(path)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, str(file)], stdout=output, stderr=subprocess.STDOUT, **(account.popen_arguments() if account else {})
            )
        pooled = f"postgres://anybody@127.0.0.1:{port}/{name}"
        try:
            eventually(lambda: _answers(pooled), what=f"pgbouncer answers:\n{log.read_text()}")
            yield pooled
        finally:
            process.terminate()
            process.wait(10)


def _as_words(url: str) -> str:
    parts = urlsplit(url)
    words = {"host": unquote(parts.hostname or ""), "port": parts.port, "user": parts.username, "password": parts.password}
    return " ".join(f"{name}={value}" for name, value in {**words, "dbname": parts.path.lstrip("/")}.items() if value)


def _answers(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=10):
        return True
    return False
