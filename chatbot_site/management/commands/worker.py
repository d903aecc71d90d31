"""`manage.py worker`: what this server does in the background. Run as many as there is work for; one is enough for most."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from django.core.management.base import BaseCommand

from memory.api import keep_remembering
from observability.outbound import close_transports


class Command(BaseCommand):
    help = "Put finished turns into long-term memory, until it is asked to stop. Any number of these may run."

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(_work())


async def _work() -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        await keep_remembering(stopping)
    finally:
        await close_transports()
