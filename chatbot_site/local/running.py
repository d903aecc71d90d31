"""`make run`: everything that a fresh machine lacks, then the server on localhost."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from chatbot_site.settings.environment import PROJECT_DIR, Environment, env_file, read_environment
from chatbot_site.tokenizer import place_ranks

from . import background, demo_model, postgresql, webserver
from .folder import DataFolder, write_private
from .processes import Interrupts, Program
from .refusal import Refusal, explain_file_error
from .supervisor import Supervisor, say
from .valkey import Valkey


def run(interrupts: Interrupts) -> None:
    """Run until a signal comes.

    Raises:
        Refusal: something of this machine or its settings is in the way.
        StopRequested: a signal came.
    """
    try:
        environment = read_environment(files=(env_file(),))
    except ImproperlyConfigured as error:
        raise Refusal(str(error)) from None
    folder = DataFolder(environment.data_dir)
    folder.open(interrupts)
    try:
        with Supervisor(folder, interrupts=interrupts, project=PROJECT_DIR) as supervisor:
            _serve(supervisor, environment)
    except OSError as error:
        raise explain_file_error(error, folder=folder.path) from None


def _serve(supervisor: Supervisor, environment: Environment) -> None:
    started = time.monotonic()
    addresses = webserver.usable_addresses(environment.port)
    made = start_services(supervisor, environment)
    models, urls = _start_models(supervisor, environment)
    made |= urls
    made["SECRET_KEY"] = environment.secret_key or supervisor.folder.secret_key()
    made["TIKTOKEN_CACHE_DIR"] = str(place_ranks(Path(environment.tiktoken_cache_dir or environment.data_dir / "tokenizer")))
    supervisor.folder.write_environment(made)
    env = os.environ | made | {"DJANGO_SETTINGS_MODULE": "chatbot_site.settings.dev", "DATA_DIR": str(environment.data_dir)}
    env["WEB_CONCURRENCY"] = str(environment.web_concurrency or 1)  # one person tries it out, beside other work
    server = webserver.program(addresses, project=PROJECT_DIR, env=env)
    stamp = Stamp(supervisor.folder.path / "prepared", environment.database_url)
    if stamp.holds():  # nothing to migrate: the server starts while the rest of the set-up is gone through
        supervisor.start(server, wait=False)
        said = _prepare(supervisor.interrupts, env)
    else:
        said = _prepare(supervisor.interrupts, env)
        stamp.write()
        supervisor.start(server, wait=False)
    supervisor.start(background.worker(project=PROJECT_DIR, env=env, log=supervisor.folder.logs / "worker.log"), wait=False)
    for program in (*models, server):
        say(f"Waiting for {program.title[0].lower()}{program.title[1:]}")
        supervisor.wait_until_ready(program)
    _greet(environment.port, said=said, seconds=time.monotonic() - started)
    supervisor.watch()


def _start_models(supervisor: Supervisor, environment: Environment) -> tuple[list[Program], dict[str, str]]:
    """Start the built-in models where no others are set, without waiting for them; return them and their addresses."""
    logs = supervisor.folder.logs
    models: list[Program] = []
    urls: dict[str, str] = {}
    if not (environment.openai_api_key or environment.openai_base_url or environment.default_chat_model):
        port = postgresql.free_port()
        say("Loading the built-in demo model, which is not for real answers")
        models.append(demo_model.program(port, project=PROJECT_DIR, log=logs / "demo_model.log"))
        urls["DEMO_MODEL_URL"] = f"http://127.0.0.1:{port}/v1"
    if background.needs_embedder(environment):
        port = postgresql.free_port()
        models.append(background.embedder(port, project=PROJECT_DIR, log=logs / "embedder.log"))
        urls["EMBEDDER_URL"] = f"http://127.0.0.1:{port}/v1"
    for model in models:
        supervisor.start(model, wait=False)  # while the database is brought up to date
    return models, urls


@dataclass(frozen=True)
class Stamp:
    """Remembers for which database and which migrations the last preparation succeeded."""

    file: Path
    database_url: str

    def holds(self) -> bool:
        return self.file.exists() and self.file.read_text() == self._text()

    def write(self) -> None:
        write_private(self.file, self._text())

    def _text(self) -> str:
        digest = hashlib.sha256(self.database_url.encode())
        for migration in sorted(PROJECT_DIR.glob("*/migrations/*.py")):
            digest.update(migration.name.encode() + migration.read_bytes())
        digest.update((PROJECT_DIR / "requirements.txt").read_bytes())  # packages have migrations too
        return digest.hexdigest()


def start_services(supervisor: Supervisor, environment: Environment, *, durable: bool = True) -> dict[str, str]:
    """Start the embedded PostgreSQL and Valkey where the environment names none; return DATABASE_URL and REDIS_URL.

    Raises:
        Refusal: one of them cannot be started, or the one that the environment names cannot be used.
    """
    folder = supervisor.folder
    urls = {"DATABASE_URL": environment.database_url, "REDIS_URL": environment.redis_url}
    if environment.database_url or environment.redis_url:
        from . import external  # here, because the client libraries take a moment to import

        if environment.database_url:
            external.check_database(environment.database_url)
        if environment.redis_url:
            external.check_redis(environment.redis_url)
    starting: list[Program] = []
    if not environment.database_url:
        database = postgresql.embedded(folder.path, durable=durable)
        say("Starting PostgreSQL" if (database.home / "data").exists() else "Making a PostgreSQL database and starting it")
        if database.prepare(supervisor.interrupts):
            (folder.path / "prepared").unlink(missing_ok=True)
        urls["DATABASE_URL"] = database.url
        starting.append(database.program(log=folder.logs / "postgresql.log"))
    if not environment.redis_url:
        cache = Valkey(folder.path / "valkey", durable=durable)
        say("Starting Valkey")
        cache.prepare()
        urls["REDIS_URL"] = cache.url
        starting.append(cache.program(log=folder.logs / "valkey.log"))
    for program in starting:
        supervisor.start(program, wait=False)
    for program in starting:
        supervisor.wait_until_ready(program)
    return urls


def _prepare(interrupts: Interrupts, env: Mapping[str, str]) -> list[str]:
    """Migrate and set up; return what the set-up said."""
    say("Bringing the database up to date")
    done = interrupts.run([sys.executable, "-m", "chatbot_site.local.prepare"], cwd=PROJECT_DIR, env=env)
    if done.returncode:
        raise Refusal(f"Preparing the database failed:\n{done.stdout.strip()}")
    return done.stdout.splitlines()


def _greet(port: int, *, said: list[str], seconds: float) -> None:
    url = f"http://localhost:{port}"
    password = next((found[1] for line in said if (found := re.search(r"superuser.* password (\S+)", line))), "")
    login = f" (user admin, password {password} - shown only this once)" if password else ""
    news = "\n".join(line for line in said if not (password and password in line))
    say(
        f"""
Ready after {seconds:.1f} s. Three things to try:

  1. Ask the support agent:
     curl -X POST {url}/api/chat/support -H 'Content-Type: application/json' -d '{{"message": "Hello!"}}'
  2. Edit the agents: {url}/admin/{login}
  3. Chat in the browser: {url}/chat/support

{news}
Ctrl-C stops the server."""
    )
