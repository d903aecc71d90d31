"""Server-sent events: a turn's events as text (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Final, cast

import msgspec
import structlog
from django.db import Error as DatabaseError  # unlike its namesake in Django, with InterfaceError
from django.http import HttpResponseBase, StreamingHttpResponse
from rest_framework.renderers import BaseRenderer

from agents.chat.answer import answer
from agents.chat.events import ChatEvent, Delta, Done, Started
from agents.chat.question import Question
from observability.api import open_stream
from observability.errors import ChatbotError, Unavailable

log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
_encode: Final = msgspec.json.Encoder().encode


class EventStreamRenderer(BaseRenderer):
    """Lets DRF's negotiation accept `text/event-stream`; the view streams by itself."""

    media_type = MEDIA_TYPE
    format = "sse"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return _encode(data)


class EventStreamResponse(StreamingHttpResponse):
    """A stream whose own generator is iterated, and closed by whoever iterates it.

    Django wraps a generator in two more and closes only the outermost; the rest is left to the garbage collector.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, content_type=MEDIA_TYPE)
        self._events = events

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self._events


async def stream_events(question: Question, request_id: str) -> HttpResponseBase:
    """Return the turn as an event stream: `start`, `delta`…, then `done` or `error`.

    Raises:
        ChatbotError: whatever is wrong before the turn has begun, so that it gets an HTTP status of its own.
    """
    events = answer(question)
    started = cast("Started", await anext(events))
    response = EventStreamResponse(_as_text(started, events, request_id))
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    for name, value in started.headers.items():
        response[name] = value
    return response


async def _as_text(started: Started, events: AsyncGenerator[ChatEvent, None], request_id: str) -> AsyncGenerator[bytes, None]:
    message_id = str(started.message_id)
    number = 0
    async with aclosing(events), open_stream():
        start = {"message_id": message_id, "session_id": started.session_id, "agent": started.agent, "version": started.version}
        yield _event("start", f"{message_id}:{number}", start)
        try:
            async for event in events:
                number += 1
                if isinstance(event, Delta):
                    yield b'event: delta\nid: %b:%d\ndata: {"text":%b}\n\n' % (message_id.encode(), number, _encode(event.text))
                elif isinstance(event, Done):
                    yield _event("done", f"{message_id}:{number}", chat_answer(event))
        except ChatbotError as error:
            yield _event("error", f"{message_id}:{number + 1}", error.document(request_id))
        except DatabaseError as error:
            log.error("turn could not be stored", exc_info=error)
            yield _event("error", f"{message_id}:{number + 1}", Unavailable().document(request_id))
        except Exception as error:
            log.exception("turn broke", exc_info=error)
            yield _event("error", f"{message_id}:{number + 1}", ChatbotError().document(request_id))


def chat_answer(done: Done) -> dict[str, Any]:
    """Return the JSON answer of the contract; `shapes.ChatAnswer` describes it."""
    told = {
        "reply": done.reply,
        "session_id": done.session_id,
        "message_id": str(done.message_id),
        "agent": done.agent,
        "version": done.version,
        "model": done.model,
        "cached": done.cached,
        "finish_reason": done.finish_reason,
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "cost_usd": None if done.cost_usd is None else f"{done.cost_usd:.10f}",
            "saved_usd": f"{done.saved_usd:.10f}",
        },
    }
    if done.matched is not None:
        told["matched"] = asdict(done.matched)
    return told


def _event(name: str, event_id: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), event_id.encode(), _encode(data))
