"""The API's way into Django: the same views and URL resolver as Django's own handler, without its per-request threads.

Django's stock `ASGIHandler` hops to a thread for its request signals and for closing the response, and spools every body
to a file object made for uploads. API requests need none of it (docs/adr/0002-async-path.md has the measurement). What
the stock handler guarantees still holds, and `tests/chatbot_site/test_handler.py` asserts it: a client that leaves
cancels its view, bodies are bounded, exceptions become responses, middleware runs in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from io import BytesIO
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed, StreamingHttpResponse
from django.urls import set_script_prefix
from django.utils.module_loading import import_string

from chatbot_site.problems import answer_wrong_method
from chatbot_site.visits import Visit

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

HEARTBEAT_S: Final = 15.0
HEARTBEAT: Final = b": keep-alive\n\n"
# A client that takes nothing for so long has left, whatever its connection says.
STALLED_S: Final = 60.0
# Quick answers are there before it is worth a task. gunicorn cancels by itself, too.
_WATCH_AFTER_S: Final = 0.2
_TOO_LARGE: Final = "chatbot.body_is_too_large"


class ClientLeft(Exception):
    """The client closed its connection before the answer was complete."""


class ApiHandler(ASGIHandler):
    """Serves the routes under `settings.API_PREFIXES` with `settings.API_MIDDLEWARE`."""

    def load_middleware(self, is_async: bool = True) -> None:
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        handler: Any = convert_exception_to_response(self._get_response_to_whole_body)
        for path in reversed(settings.API_MIDDLEWARE):
            handler = convert_exception_to_response(import_string(path)(handler))
        self._middleware_chain: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = handler

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = BytesIO()
        request, refusal = self.create_request(scope, body)  # exactly one of the two
        if request is None:
            assert refusal is not None
            await self._send(refusal, send)
            return
        if request.script_name:
            set_script_prefix(request.script_name)
        visit = Visit(request)
        try:
            is_whole = await _read_body(receive, into=body, limit=settings.MAX_BODY_BYTES, headers=scope["headers"])
            request.body_is_too_large = not is_whole  # type: ignore[attr-defined] # ours, read below
            await self._respond(request, visit, receive, send)
        except ClientLeft:
            visit.leave()

    async def _respond(self, request: HttpRequest, visit: Visit, receive: Receive, send: Send) -> None:
        """Send the answer.

        Raises:
            ClientLeft: before it was complete.
        """
        watch = _Watch(receive)
        try:
            # `response.close()` would only send the signal for what API requests never have: connections of their own thread.
            await self._send(visit.answer(await self._middleware_chain(request)), send)
        except asyncio.CancelledError:
            if not await watch.has_client_left():  # the server itself is stopping
                raise
            raise ClientLeft from None
        finally:
            watch.end()

    async def _get_response_to_whole_body(self, request: HttpRequest) -> HttpResponseBase:
        if request.body_is_too_large:  # type: ignore[attr-defined] # set above
            raise RequestDataTooBig
        response: HttpResponseBase = await super()._get_response_async(request)  # type: ignore[misc] # Django's own, missing from the stubs
        return answer_wrong_method(request, response) if isinstance(response, HttpResponseNotAllowed) else response

    async def _send(self, response: HttpResponseBase, send: Send) -> None:
        if not isinstance(response, StreamingHttpResponse):
            response["Content-Length"] = str(len(response.content))  # type: ignore[attr-defined] # of HttpResponse: the other kind is excluded
        headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if not isinstance(response, StreamingHttpResponse):
            await send({"type": "http.response.body", "body": response.content})  # type: ignore[attr-defined] # as above
            return
        heartbeat = _Heartbeat(send)
        try:
            async with aclosing(aiter(response)) as parts, heartbeat:  # type: ignore[type-var] # streams of this API are async generators
                async for part in parts:
                    await heartbeat.send(part)
        except asyncio.CancelledError:
            if heartbeat.client_stalled:
                raise ClientLeft from None
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class PageHandler(ASGIHandler):
    """Django's own handler for every other page, with the body bounded.

    Django spools a body of any length to disk before it looks at who sends it, and where.
    """

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await super().__call__(scope, _Bounded(scope, receive, limit=settings.MAX_BODY_BYTES), send)

    async def _get_response_async(self, request: ASGIRequest) -> HttpResponseBase:
        if request.scope.get(_TOO_LARGE):
            raise RequestDataTooBig
        response: HttpResponseBase = await super()._get_response_async(request)  # type: ignore[misc] # Django's own, missing from the stubs
        return response


class _Bounded:
    """Receives a body of at most `limit` bytes. What exceeds it ends there, is marked in the scope, and is then thrown away."""

    def __init__(self, scope: dict[str, Any], receive: Receive, *, limit: int) -> None:
        self._scope = scope
        self._receive = receive
        self._left_bytes = limit
        self._has_ended = False
        if _announced_bytes(scope["headers"]) > limit:
            scope[_TOO_LARGE] = True

    async def __call__(self) -> Mapping[str, Any]:
        if self._scope.get(_TOO_LARGE) and not self._has_ended:
            return self._end()
        message = await self._receive()
        while self._has_ended and message["type"] == "http.request":
            message = await self._receive()
        self._left_bytes -= len(message.get("body", b""))
        if self._left_bytes < 0:
            self._scope[_TOO_LARGE] = True
            return self._end()
        return message

    def _end(self) -> Mapping[str, Any]:
        self._has_ended = True
        return {"type": "http.request", "body": b"", "more_body": False}


class _Watch:
    """Cancels the task that makes it, should its client leave. Most answers are there before it is worth to begin looking."""

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._receive = receive
        self._answering = task
        self._looking: asyncio.Task[None] | None = None
        self._looks = False
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._begin)

    def end(self) -> None:
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _begin(self) -> None:
        self._looking = asyncio.create_task(self._look())

    async def has_client_left(self) -> bool:
        """Tell whether that is why the task is cancelled. gunicorn may cancel it, too, and before it is watched."""
        if self._looking is not None and self._looks:
            return self._looking.done()
        self.end()  # its task may be there, and must not cancel once more what is cancelled
        looking = asyncio.create_task(self._wait_until_client_leaves())
        await asyncio.sleep(0)  # after its first step: of a client that has left, it hears at once
        looking.cancel()
        return looking.done()

    async def _look(self) -> None:
        self._looks = True
        await self._wait_until_client_leaves()
        self._answering.cancel()

    async def _wait_until_client_leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


class _Heartbeat:
    """Sends a stream's parts, and an SSE comment whenever none was sent for `HEARTBEAT_S`: proxies close silent streams.

    Where the client takes nothing for `STALLED_S`, the stream's task is cancelled: an answer that nobody reads must not hold
    its place, and the model's, for as long as somebody keeps the connection open.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.client_stalled = False
        self._clock = asyncio.get_running_loop().time
        self._last_sent_at = self._clock()
        self._lock = asyncio.Lock()

    async def send(self, part: bytes) -> None:
        self._last_sent_at = self._clock()
        async with self._lock:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def _beat(self) -> None:
        with contextlib.suppress(OSError):  # the connection broke: whoever sends the next part learns it too
            while (silent_s := self._clock() - self._last_sent_at) < STALLED_S:
                if silent_s < HEARTBEAT_S:
                    await asyncio.sleep(HEARTBEAT_S - silent_s)
                elif self._lock.locked():  # the client has not taken the last part yet
                    await asyncio.sleep(min(HEARTBEAT_S, STALLED_S - silent_s))
                else:
                    await self._send_heartbeat()
            self._give_up()

    async def _send_heartbeat(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STALLED_S):
                await self.send(HEARTBEAT)

    def _give_up(self) -> None:
        self.client_stalled = True
        self._stream.cancel()

    async def __aenter__(self) -> _Heartbeat:
        task = asyncio.current_task()
        assert task is not None
        self._stream = task
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()


async def _read_body(receive: Receive, *, into: BytesIO, limit: int, headers: list[tuple[bytes, bytes]]) -> bool:
    """Read the body, and tell whether that is all of it: False where it exceeds `limit` bytes; no more than that is ever kept.

    Raises:
        ClientLeft: before the body was complete.
    """
    if _announced_bytes(headers) > limit:
        return False
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        into.write(message.get("body", b""))
        if into.tell() > limit:
            return False
        if not message.get("more_body", False):
            into.seek(0)
            return True


def _announced_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    return next((int(value) for name, value in headers if name == b"content-length" and value.isdigit()), 0)
