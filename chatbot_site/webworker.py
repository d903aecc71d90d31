"""gunicorn's ASGI worker, which takes leave of the connections that proxies keep open instead of cutting them, and its logger.

Asked to stop, the worker itself closes a connection as soon as its answer is complete. A stream's headers went out long before, without a
word of that, so a proxy may send the next request on the connection in the same moment, and nobody repeats a POST. This worker goes
on with such connections until they were told.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gunicorn.glogging import Logger
from gunicorn.workers.gasgi import ASGIWorker

from chatbot_site.leaving import is_leaving, leave

_LOOK_EVERY_S: Final = 0.1


class WebWorker(ASGIWorker):  # type: ignore[misc] # gunicorn has no types
    """Asked to stop, it takes no new connections, answers on the others with `Connection: close`, and ends when they are closed."""

    def handle_exit_signal(self) -> None:
        if self.alive and self.servers and not is_leaving():
            leave()
            self._leaving = self.loop.create_task(self._take_leave())
        elif not self.servers:
            super().handle_exit_signal()  # it was only starting

    async def _take_leave(self) -> None:
        for server in self.servers:
            server.close()
        until = self.loop.time() + self.cfg.graceful_timeout
        while self.nr_conns and self.loop.time() < until:  # noqa: ASYNC110 - a count of gunicorn's
            await asyncio.sleep(_LOOK_EVERY_S)
        self.cfg.set("graceful_timeout", 0)  # it was waited for; what is left is interrupted, and stored
        super().handle_exit_signal()


class ServerLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's own logger, which puts no line together for each request where nobody asked for one.

    gunicorn takes it for granted that whoever configures logging wants them.
    """

    @property
    def access_log_enabled(self) -> bool:
        return bool(self.cfg.accesslog)
