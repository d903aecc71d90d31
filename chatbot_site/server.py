"""What this process serves: the API through its own handler, every other page through Django's, and its beginning and end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import Error as DatabaseError

from agents.chat.running import running_turns
from chatbot_site.handler import ApiHandler, PageHandler, Receive, Send
from chatbot_site.stamp import ForeignDatabase, refuse_foreign_database
from memory.api import close_lines, end_left_behind_turns, warn_unless_isolated
from observability.api import keep_log_level, keep_measuring, run_burst
from observability.outbound import close_transports

log = structlog.get_logger(__name__)

_SWEEP_EVERY_S: Final = 60.0
# How long a thread that has heard from a store waits while others compute. Python's own 5 ms would be most of a burst's time.
_SWITCH_EVERY_S: Final = 0.001

_api = ApiHandler()
_pages = PageHandler()
# Django's documentation pages come from the API's prefix, but are pages: they need static files and the page's policy.
_PAGES_UNDER_API: Final = ("/api/docs", "/api/schema")


async def serve(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    elif scope["path"].startswith(settings.API_PREFIXES) and not scope["path"].startswith(_PAGES_UNDER_API):
        await _api(scope, receive, send)
    else:
        await _pages(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    try:
        await refuse_foreign_database()
    except ForeignDatabase as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    work = (_sweep_left_behind_turns(), _tell_operators(), keep_measuring(), keep_log_level(asyncio.Event()))
    tasks = [asyncio.create_task(each) for each in work]
    # What exists now lives as long as the process: a collector that need not look at it halves the slowest answers.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(_SWITCH_EVERY_S)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    for task in tasks:
        task.cancel()
    await running_turns.stop()
    await close_transports()
    close_lines()
    await send({"type": "lifespan.shutdown.complete"})


async def _sweep_left_behind_turns() -> None:
    while True:
        with contextlib.suppress(DatabaseError):
            if count := await run_burst(end_left_behind_turns):
                log.warning("ended turns that a dead process had left behind", count=count)
        await asyncio.sleep(_SWEEP_EVERY_S)


async def _tell_operators() -> None:
    """Say once in the log what does not keep this server from working, but ought to be otherwise."""
    with contextlib.suppress(DatabaseError):  # of which readiness tells
        await run_burst(warn_unless_isolated)
