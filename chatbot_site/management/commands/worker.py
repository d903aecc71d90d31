"""`manage.py worker`: what this server does in the background. Run as many as there is work for; one is enough for most."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import structlog
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand

from agents.chat.facts import read_facts
from agents.chat.likeness import keep_forgetting_questions
from agents.chat.summaries import summarise
from agents.versions.keeping import list_policies
from chatbot_site.stamp import refuse_foreign_database
from memory.api import keep_reading_facts, keep_remembering, keep_summarising, keep_tidy
from observability.api import keep_alerting, keep_log_level, keep_prices, keep_serving_metrics, keep_settling_orphans, keep_summing
from observability.outbound import close_transports

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "What is done in the background: memory, summaries, upkeep, prices, alerts. Any number may run."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.run(_work())
        except ImproperlyConfigured:  # a remedy, in words
            raise
        except Exception:  # as a line of the log, without what it may repeat; not as Python's own traceback
            log.exception("the worker broke")
            sys.exit(1)


async def _work() -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await refuse_foreign_database()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_remembering(stopping))
            group.create_task(keep_reading_facts(stopping, read_facts))
            group.create_task(keep_summarising(stopping, summarise))
            group.create_task(keep_tidy(stopping, list_policies))
            group.create_task(keep_forgetting_questions(stopping))
            group.create_task(keep_prices(stopping))
            group.create_task(keep_alerting(stopping))
            group.create_task(keep_settling_orphans(stopping))
            group.create_task(keep_summing(stopping))
            group.create_task(keep_serving_metrics(stopping))
            group.create_task(keep_log_level(stopping))
    finally:
        await close_transports()
