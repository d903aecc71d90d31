"""The worker: puts finished turns into long-term memory, as soon as they are finished, for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import psycopg
import structlog
from django.db import Error as DatabaseError

from memory.embedders.client import EmbeddingFailed
from memory.embedders.configured import usable_models
from memory.spaces import WrongSpace, model_in_use
from memory.turns import TO_REMEMBER
from memory.writing import remember_due_turns
from observability.api import connection_parameters, note_job_failure, run_burst
from observability.logs import in_words

log = structlog.get_logger(__name__)

QUEUE: Final = "memory"
"""What metrics and alerts call this work."""
POLL_S: Final = 3.0
"""How often to look for turns of which no word came: behind a transaction pooler none ever does."""
_LONGEST_WAIT_S: Final = 30.0
_LISTEN_AGAIN_S: Final = 5.0


async def keep_remembering(stopping: asyncio.Event) -> None:
    """Put turns into long-term memory until `stopping` is set. What fails is logged and tried again; nothing is lost meanwhile."""
    if not usable_models():
        log.warning("nothing to embed with: long-term memory is off", remedy="set EMBEDDING_BASE_URL, OPENAI_API_KEY or EMBEDDER_URL")
        await stopping.wait()
        return
    news = asyncio.Event()
    listening = asyncio.create_task(_listen(news))
    try:
        await _remember_until(stopping, news)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _remember_until(stopping: asyncio.Event, news: asyncio.Event) -> None:
    failures = 0
    while not stopping.is_set():
        news.clear()  # before looking: what comes while it looks is looked for again
        try:
            model = await run_burst(model_in_use)  # each time: it may be changed meanwhile
            remembered = await remember_due_turns(model) if model else 0
        except Exception as error:  # a fault of ours must not end the worker either: it would only be started again
            failures += 1
            expected = isinstance(error, EmbeddingFailed | WrongSpace | DatabaseError)
            reason = in_words(error)
            log.warning("turns not remembered yet", reason=reason, attempt=failures, exc_info=not expected)
            await note_job_failure(QUEUE, error)
            await _wait(stopping, seconds=min(2.0 ** (failures - 1), _LONGEST_WAIT_S))
            continue
        if failures:
            log.info("turns are remembered again")
            failures = 0
        if remembered:
            log.debug("turns remembered", turns=remembered)
        else:
            await _wait(news, stopping, seconds=POLL_S)


async def _wait(*events: asyncio.Event, seconds: float) -> None:
    """Wait until one of `events` is set, but no longer than `seconds`."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _listen(news: asyncio.Event) -> None:
    """Set `news` whenever PostgreSQL tells of a finished turn; where that does not work, try again and again."""
    while True:
        with contextlib.suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(**connection_parameters(), autocommit=True) as listener:
                await listener.execute(f"LISTEN {TO_REMEMBER}")
                news.set()  # whatever was finished before this
                async for _ in listener.notifies():
                    news.set()
        await asyncio.sleep(_LISTEN_AGAIN_S)
