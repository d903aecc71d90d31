"""`make run`: everything that a fresh machine lacks, then the server on localhost."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from django.core.exceptions import ImproperlyConfigured

from chatbot_site.settings.environment import PROJECT_DIR, Environment, env_file, read_environment
from chatbot_site.tokenizer import place_ranks

from . import demo_model, postgresql, webserver
from .folder import DataFolder
from .processes import Interrupts, Program
from .refusal import Refusal, explain_file_error
from .supervisor import Supervisor, say
from .valkey import Valkey

LEFTOVER_PORT_S: Final = 5.0


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
    model = None
    if not (environment.openai_api_key or environment.openai_base_url or environment.default_chat_model):
        port = postgresql.free_port()
        model = demo_model.program(port, project=PROJECT_DIR, log=supervisor.folder.logs / "demo_model.log")
        say("Loading the built-in demo model, which is not for real answers")
        supervisor.start(model, wait=False)  # while the database is brought up to date
        made["DEMO_MODEL_URL"] = f"http://127.0.0.1:{port}/v1"
    made["SECRET_KEY"] = environment.secret_key or supervisor.folder.secret_key()
    made["TIKTOKEN_CACHE_DIR"] = str(place_ranks(Path(environment.tiktoken_cache_dir or environment.data_dir / "tokenizer")))
    supervisor.folder.write_environment(made)
    env = os.environ | made | {"DJANGO_SETTINGS_MODULE": "chatbot_site.settings.dev", "DATA_DIR": str(environment.data_dir)}
    password = _prepare(supervisor.interrupts, env)
    if model:
        supervisor.wait_until_ready(model)
    say("Starting the web server")
    supervisor.start(webserver.program(addresses, project=PROJECT_DIR, env=env))
    _greet(environment.port, password=password, demo=model, seconds=time.monotonic() - started)
    supervisor.watch()


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
        database.prepare(supervisor.interrupts)
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


def _prepare(interrupts: Interrupts, env: Mapping[str, str]) -> str:
    """Migrate and set up; return the administrator's password if it was made just now."""
    say("Bringing the database up to date")
    done = interrupts.run([sys.executable, "-m", "chatbot_site.local.prepare"], cwd=PROJECT_DIR, env=env)
    if done.returncode:
        raise Refusal(f"Preparing the database failed:\n{done.stdout.strip()}")
    for line in done.stdout.splitlines():
        say(f"  {line}")
    found = re.search(r"password:?\s+(\S+)", done.stdout, re.IGNORECASE)
    return found[1] if found else ""


def _greet(port: int, *, password: str, demo: Program | None, seconds: float) -> None:
    url = f"http://localhost:{port}"
    login = f" (user admin, password {password} - shown only this once)" if password else ""
    say(
        f"""
Ready after {seconds:.1f} s. Three things to try:

  1. Ask the support agent:
     curl -X POST {url}/api/chat/support -H 'Content-Type: application/json' -d '{{"message": "Hello!"}}'
  2. Edit the agents: {url}/admin/{login}
  3. Chat in the browser: {url}/chat/support
"""
    )
    if demo:
        say("Answers come from the built-in demo model, which is not for real answers. For a real one set OPENAI_API_KEY, in .env say.")
    say("Ctrl-C stops the server.")
