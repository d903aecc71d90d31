"""docs/operating.md's commands for backups, run as they stand there: from one PostgreSQL to another that counts from the beginning."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import httpx2
import psycopg
import pytest
from psycopg import sql

from chatbot_site.local.postgresql import embedded, packaged_binaries
from chatbot_site.local.processes import Interrupts
from chatbot_site.settings.environment import PROJECT_DIR
from tests.factories import unique
from tests.hosting.platform import HEADERS, Platform
from tests.upstream import Reply
from tests.waiting import eventually

PATH = "/api/chat/hosted"
STORE_A_KEY = (
    "from agents.models import Provider; from agents.providers.keys import seal;"
    "Provider.objects.create(slug='vendor', base_url='https://vendor.example/v1', encrypted_key=seal('sk-stored'), is_default=False)"
)
READ_THE_KEY = (
    "from agents.models import Provider; from agents.providers.keys import key_of; print(key_of(Provider.objects.get(slug='vendor')))"
)
ROLL_UP = "from django.db import transaction; from observability.api import roll_up\nwith transaction.atomic(): roll_up()"
BOUGHT = "SELECT count(*), sum(prompt_tokens), sum(completion_tokens) FROM observability_attempt WHERE kind = 'chat'"


def commands(heading: str) -> str:
    """Return what stands in the shell blocks below a heading of the page."""
    text = (PROJECT_DIR / "docs" / "operating.md").read_text()
    section = text.split(f"\n### {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


@pytest.fixture
def new_server(tmp_path_factory) -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL of this test's own, which has no roles but its superuser."""
    folder = tmp_path_factory.mktemp("restored")
    if os.geteuid() == 0:
        for above in (folder, *folder.parents[:2]):
            above.chmod(0o711)
    database = embedded(folder, durable=False)
    database.prepare(Interrupts())
    program = database.program(log=folder / "log")
    program.start()
    eventually(program.ready, what="the other PostgreSQL is ready", timeout_s=90)
    yield database.url
    program.stop()


def run(text: str, *, environment: dict[str, str]) -> str:
    path = f"{packaged_binaries()}:{environment['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", text], cwd=PROJECT_DIR, env=environment | {"PATH": path}, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(hosted: Platform, key: str, message: str, session: str) -> None:
    web = hosted.start_web()
    headers = HEADERS | {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=f"http://127.0.0.1:{web.port}", headers=headers, timeout=120, trust_env=False) as client:
        answer = client.post(PATH, json={"message": message, "user": "ada", "session_id": session})
        assert answer.status_code == 200, answer.text
    web.terminate()
    assert web.process.wait(30) == 0


def read(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as database:
        return database.execute(query).fetchall()


@pytest.fixture
def owned_database(new_database, production, manage) -> Iterator[tuple[str, str]]:
    """The URLs of a migrated database, as its owner, an ordinary user, reaches it, and as the role for backups does."""
    url, owner, backup = new_database(), unique("owner"), unique("backup")
    with psycopg.connect(url, autocommit=True) as database:
        [[name]] = database.execute("SELECT current_database()")
        database.execute("CREATE EXTENSION vector")
        database.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(owner)))
        database.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(owner)))
        [made] = re.findall(r"^(CREATE ROLE chatbot_backup .*);$", (PROJECT_DIR / "docs" / "operating.md").read_text(), re.MULTILINE)
        database.execute(made.replace("chatbot_backup", f'"{backup}"').replace("…", "x"))
        urls = [_as_user(url, user) for user in (owner, backup)]
        done = manage(production(DATABASE_URL=urls[0]), "migrate", "--verbosity", "0")
        assert done.returncode == 0, done.stderr
        yield urls[0], urls[1]
        database.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(owner)))
        for role in (owner, backup):
            database.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def _as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:x@{parts.netloc.rpartition('@')[2]}"))


def test_a_dump_has_no_holes(owned_database, production, tmp_path) -> None:
    owner, backup = owned_database
    environment = production(DATABASE_URL=owner)
    make = commands("Make one").replace("chatbots.dump", str(tmp_path / "chatbots.dump"))
    with pytest.raises(AssertionError, match="query would be affected by row-level security policy"):
        run(make, environment=environment | {"BACKUP_URL": owner})
    run(make, environment=environment | {"BACKUP_URL": backup})
    listed = run(f"pg_restore --list {tmp_path}/chatbots.dump", environment=environment)
    assert "TABLE DATA public memory_passage" in listed


def test_a_dump_is_restored_on_a_new_server(host, new_server, manage, upstream, tmp_path) -> None:
    upstream.script(Reply("What a nice bird."))
    hosted = host(MEMORY_DEADLINE_MS="10000")
    old = hosted.environment["DATABASE_URL"]
    assert manage(hosted.environment, "shell", "--no-imports", "-c", STORE_A_KEY).returncode == 0
    key = manage(hosted.environment, "keys", "create", "aviary", "web", "--agent", "hosted").stdout.strip()
    worker = hosted.start("worker")
    ask(hosted, key, "My parrot is called Pico.", "one")
    eventually(lambda: read(old, "SELECT count(*) FROM memory_turn WHERE remembered_at IS NOT NULL") == [(1,)], what="memory", timeout_s=90)
    worker.terminate()
    assert worker.process.wait(30) == 0
    manage(hosted.environment, "shell", "--no-imports", "-c", ROLL_UP)

    dump = str(tmp_path / "chatbots.dump")
    run(commands("Make one").replace("chatbots.dump", dump), environment=hosted.environment | {"BACKUP_URL": old})
    restored = hosted.environment | {"DATABASE_URL": new_server}
    run(commands("Restore it").replace("chatbots.dump", dump), environment=restored)

    assert manage(restored, "shell", "--no-imports", "-c", READ_THE_KEY).stdout.strip() == "sk-stored"
    another = restored | {"SECRET_KEY": "another " * 10}
    assert "stored key of the provider vendor cannot be read" in manage(another, "shell", "--no-imports", "-c", READ_THE_KEY).stderr
    assert read(new_server, "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 'memory_passage'") == [(True, True)]

    again = Platform(restored, tmp_path)
    try:
        ask(again, key, "What is my parrot called?", "two")
    finally:
        again.stop()
    assert "Pico" in str(upstream.calls[-1].body["messages"])
    # Numbers of transactions begin anew, the sums are exact all the same.
    assert (
        read(old, "SELECT pg_current_xact_id()::text::bigint")[0][0] > read(new_server, "SELECT pg_current_xact_id()::text::bigint")[0][0]
    )
    assert manage(restored, "shell", "--no-imports", "-c", ROLL_UP).returncode == 0
    [summed] = read(
        new_server, "SELECT sum(attempts), sum(prompt_tokens), sum(completion_tokens) FROM observability_usageday WHERE kind = 'chat'"
    )
    assert [summed] == read(new_server, BOUGHT)
    assert summed[0] == 2
