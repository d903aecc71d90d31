"""PostgreSQL and Redis for the benchmark: those of the environment, or the embedded ones as `make run` starts them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chatbot_site.local.folder import DataFolder
from chatbot_site.local.processes import Interrupts
from chatbot_site.local.running import start_services
from chatbot_site.local.supervisor import Supervisor
from chatbot_site.settings.environment import PROJECT_DIR, Environment


@contextmanager
def stores() -> Iterator[tuple[str, str]]:
    """Yield DATABASE_URL and REDIS_URL. Embedded ones write to the disk as durably as in production, and end with the block.

    Raises:
        chatbot_site.local.refusal.Refusal: they cannot be started or used.
    """
    path = Path(tempfile.mkdtemp(prefix="chatbot-benchmark-"))
    try:
        interrupts = Interrupts()
        folder = DataFolder(path)
        folder.open(interrupts)
        given = Environment.model_construct(
            database_url=os.environ.get("DATABASE_URL", ""), redis_url=os.environ.get("REDIS_URL", ""), data_dir=path
        )
        with Supervisor(folder, interrupts=interrupts, project=PROJECT_DIR) as supervisor, contextlib.redirect_stdout(sys.stderr):
            urls = start_services(supervisor, given)
            yield urls["DATABASE_URL"], urls["REDIS_URL"]
    finally:
        with contextlib.suppress(OSError):  # as root, the database may lie where its user can reach it
            shutil.rmtree((path / "postgresql.elsewhere").read_text().strip())
        shutil.rmtree(path, ignore_errors=True)
