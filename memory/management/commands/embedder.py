"""`manage.py embedder`: the built-in embedder, for a Procfile line or a process of its own."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand

DEFAULT_PORT: Final = 8100


class Command(BaseCommand):
    help = "Serve the built-in embedding model on 127.0.0.1, over the OpenAI wire. Set EMBEDDER_URL to its address everywhere else."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"the TCP port to listen on ({DEFAULT_PORT})")

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        # In the place of this process, so that Django's memory is given back: the embedder needs nothing of it.
        os.execv(sys.executable, [sys.executable, "-m", "memory.embedders.builtin", str(port)])  # noqa: S606 - no shell is meant
