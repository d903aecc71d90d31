"""What runs beside the web server for long-term memory: the built-in embedder, and the worker that writes memories."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chatbot_site.settings.environment import Environment

from .processes import Program, model_server

BUILTIN_MODEL: Final = "all-minilm-l6-v2"


def needs_embedder(environment: Environment) -> bool:
    """Tell whether it is named, or nothing else is set that embeds texts (`memory.embedders.configured` chooses in the same order)."""
    if environment.embedder_url:
        return False
    openai = environment.openai_api_key and not environment.openai_base_url
    is_named = environment.embedding_model == BUILTIN_MODEL and not environment.embedding_base_url
    is_next = environment.embedding_next_model == BUILTIN_MODEL and not environment.embedding_next_base_url
    return is_named or is_next or not (environment.embedding_base_url or openai)


def embedder(port: int, *, project: Path, log: Path) -> Program:
    """Return the built-in embedder's server, to be started."""
    return model_server("memory.embedders.builtin", port, name="embedder", title="The built-in embedder", project=project, log=log)


def worker(*, project: Path, env: Mapping[str, str], log: Path) -> Program:
    """Return the worker, to be started once the database is up to date. Nobody waits for it: what is due waits in the database."""
    return Program(
        name="worker",
        title="The worker",
        command=[sys.executable, "manage.py", "worker"],
        cwd=project,
        env=env,
        ready=lambda: True,
        log=log,
    )
