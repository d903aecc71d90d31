"""A request from its beginning until its one line is written: its id, how long it took, its span and how it is counted."""

from __future__ import annotations

import re
import time
from typing import Final

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from uuid_utils import uuid7

from chatbot_site.leaving import is_leaving
from observability.api import count_response
from observability.logs import begin_facts
from observability.tracing import NOTHING, begin_request

access_log = structlog.get_logger("access")

_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{8,64}")
# Logs outlive the people whom a server forgets.
_NAMED: Final = re.compile(r"^(/api/(?:users|conversations)/).+?(?=/(?:memories|export|messages)\b|$)")

CLIENT_LEFT: Final = 499
"""What proxies write as the status of a request whose client did not wait for its answer."""


class Visit:
    """A request that has begun. It ends once: with its answer, or because its client left before that.

    Its line has what the request's work noted meanwhile: who asked which agent, and how the turn ended. For a stream it is written when
    the headers go out; the turn's own line says how the stream ended.
    """

    __slots__ = ("_began_at", "_has_ended", "_request", "_request_id", "_span")

    def __init__(self, request: HttpRequest) -> None:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        self._request = request
        self._request_id = given if _SANE_ID.fullmatch(given) else str(uuid7())
        self._began_at = time.perf_counter()
        self._has_ended = False
        begin_facts(request_id=self._request_id)
        self._span = begin_request(request.method or "", request.META)
        request.request_id = self._request_id  # type: ignore[attr-defined] # ours; whoever reads it asks with getattr

    def answer(self, response: HttpResponseBase) -> HttpResponseBase:
        """Return `response` as it goes out, with the request's id."""
        response["X-Request-ID"] = self._request_id
        if is_leaving():
            response["Connection"] = "close"
        self._end(status=response.status_code)
        return response

    def leave(self) -> None:
        """Note that the client left; nothing is new where its answer had begun."""
        if not self._has_ended:
            self._end(status=CLIENT_LEFT)

    def _end(self, *, status: int) -> None:
        self._has_ended = True
        request = self._request
        route = request.resolver_match.route if request.resolver_match else ""
        if self._span is not NOTHING:
            self._end_span(route, status)
        # Probes come every few seconds: their lines would bury the others.
        write_line = access_log.debug if request.path.startswith(settings.PROBES) else access_log.info
        write_line(
            "request",
            method=request.method,
            path=_NAMED.sub(r"\1…", request.path),
            status=status,
            latency_ms=round((time.perf_counter() - self._began_at) * 1000, 1),
        )
        count_response(route=route, method=request.method or "", status=status)

    def _end_span(self, route: str, status: int) -> None:
        method = self._request.method
        self._span.note(
            {
                "http.request.method": method,
                "http.route": f"/{route}",
                "http.response.status_code": status,
                "chatbot.request_id": self._request_id,
            }
        )
        self._span.end(name=f"{method} /{route}" if route else "", error=str(status) if status >= 500 else "")
