"""Databases of their own, and the project's processes with production's settings."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from chatbot_site.settings.environment import PROJECT_DIR, Environment
from observability.api import connection_parameters
from tests.factories import unique
from tests.hosting.platform import Platform, platform

AGENT = "slug: hosted\nname: Hosted\naccess: public\nsystem_prompt: Be brief.\nreply_cache_s: 0\nmemory:\n  enabled: true\n"

Manage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def new_database(db: None) -> Iterator[Callable[[], str]]:
    """Make a database with nothing in it, and return its URL."""
    made: list[str] = []
    with psycopg.connect(**connection_parameters(), autocommit=True) as server:

        def new_database() -> str:
            made.append(unique("hosted").replace("-", "_"))
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(made[-1])))
            return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{made[-1]}"))

        yield new_database
        for name in made:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def production(tmp_path: os.PathLike[str]) -> Callable[..., dict[str, str]]:
    """Return the environment of a process in production: `production(DATABASE_URL=…, ENVIRONMENT_NAME="staging")`."""
    ours = {"DJANGO_SETTINGS_MODULE", *(name.upper() for name in Environment.model_fields)}
    theirs = {name: value for name, value in os.environ.items() if name not in ours and not name.endswith("_API_KEY")}
    secret_key = secrets.token_urlsafe(48)

    def production(**more: str) -> dict[str, str]:
        return {
            **theirs,
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.prod",
            "SECRET_KEY": secret_key,
            "REDIS_URL": os.environ["REDIS_URL"],
            "ALLOWED_HOSTS": "bots.example.com,127.0.0.1",
            "TIKTOKEN_CACHE_DIR": os.environ.get("TIKTOKEN_CACHE_DIR", str(tmp_path)),
            "ENV_FILE": os.devnull,
            "PYTHONUNBUFFERED": "1",
            **more,
        }

    return production


@pytest.fixture
def manage() -> Manage:
    """Run a command of manage.py in an environment: `manage(env, "migrate")`."""

    def manage(env: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *command], cwd=PROJECT_DIR, env=env, capture_output=True, text=True, timeout=180
        )

    return manage


@pytest.fixture
def host(new_database, production, upstream, embedder_port, manage, tmp_path: Path) -> Iterator[Callable[..., Platform]]:
    """Make a platform whose release line has run, with the agent `hosted`: `host(WEB_CONCURRENCY="2")`."""
    agent = tmp_path / "hosted.yaml"
    agent.write_text(AGENT)
    with ExitStack() as stack:

        def host(**more: str) -> Platform:
            environment = production(
                DATABASE_URL=more.get("DATABASE_URL") or new_database(),
                ENVIRONMENT_NAME="production",
                OPENAI_BASE_URL=upstream.base_url,
                OPENAI_API_KEY="sk-test",
                DEFAULT_CHAT_MODEL="test-model",
                EMBEDDER_URL=f"http://127.0.0.1:{embedder_port}/v1",
                TRUSTED_PROXIES="127.0.0.0/8",
                CLIENT_ADDRESS_HEADER="X-Real-IP",
                ANONYMOUS_REQUESTS_PER_MINUTE="0",
            )
            running = stack.enter_context(platform({**environment, **more}, tmp_path))
            assert "superuser" in running.release()
            done = manage(running.environment, "agents", "apply", "--publish", str(agent))
            assert done.returncode == 0, done.stderr
            return running

        yield host
