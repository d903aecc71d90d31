"""The worker's own metrics, on a port of theirs: it has no web server."""

from __future__ import annotations

import asyncio

import structlog
from django.conf import settings

from observability.scraping import expose, may_scrape

log = structlog.get_logger(__name__)


async def keep_serving_metrics(stopping: asyncio.Event) -> None:
    """Answer `/metrics` on WORKER_METRICS_PORT, where one is set, until `stopping` is set.

    Where the port is taken, as by another worker on this machine, the log says so, and the worker does its work without.
    """
    port: int = settings.WORKER_METRICS_PORT
    if not port:
        return
    from aiohttp import web  # here, because web processes need no second server

    async def answer(request: web.Request) -> web.Response:
        if not may_scrape(request.headers.get("Authorization", "")):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        text, content_type = await expose()
        return web.Response(body=text, headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    # Without a token, which only development goes without, nobody but this machine may ask.
    host = None if settings.METRICS_NEED_TOKEN or settings.METRICS_TOKEN else "127.0.0.1"
    try:
        await web.TCPSite(runner, host, port).start()
        await stopping.wait()
    except OSError as error:
        log.error(
            "metrics of the worker not served", port=port, reason=str(error), remedy="set WORKER_METRICS_PORT to a free port, or to 0"
        )
    finally:
        await runner.cleanup()
