"""Middleware of our own: the request id with its access-log line, and the API's security headers."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.contrib.admin.views.main import ERROR_FLAG
from django.db import DataError
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.middleware.security import SecurityMiddleware
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin
from django_prometheus.middleware import PrometheusAfterMiddleware
from uuid_utils import uuid7

from chatbot_site.leaving import is_leaving
from observability.api import count_response
from observability.logs import begin_facts
from observability.tracing import NOTHING, Span, begin_request

log = structlog.get_logger(__name__)
access_log = structlog.get_logger("access")

_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{8,64}")
# Logs outlive the people whom a server forgets.
_NAMED: Final = re.compile(r"^(/api/(?:users|conversations)/).+?(?=/(?:memories|export|messages)\b|$)")

CLIENT_LEFT: Final = 499
"""What proxies write as the status of a request whose client did not wait for its answer."""

Handler = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


@dataclass(frozen=True, slots=True)
class _Visit:
    """What is kept of a request from its beginning until its line is written."""

    request_id: str
    began_at: float
    span: Span


class RequestIdMiddleware:
    """Give every request an id (the client's own X-Request-ID where it is sane), and log one line when it is answered.

    The line has what the request's work noted meanwhile: who asked which agent, and how the turn ended. For a stream it is written
    when the headers go out; the turn's own line says how the stream ended.
    """

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        visit = _begin(request)
        response = await self.get_response(request)
        response["X-Request-ID"] = visit.request_id
        if is_leaving():
            response["Connection"] = "close"
        _end(request, visit, status=response.status_code)
        return response


def note_departure(request: HttpRequest) -> None:
    """Log a request of which the client left before an answer began, as proxies do: with status 499."""
    visit: _Visit | None = getattr(request, "visit", None)
    _end(request, visit or _begin(request), status=CLIENT_LEFT)


def _begin(request: HttpRequest) -> _Visit:
    given = request.headers.get("X-Request-ID", "")
    request_id = given if _SANE_ID.fullmatch(given) else str(uuid7())
    began_at = time.perf_counter()
    begin_facts(request_id=request_id)
    visit = _Visit(request_id, began_at, begin_request(request.method or "", request.headers))
    request.request_id = request_id  # type: ignore[attr-defined] # ours; whoever reads it asks with getattr
    request.visit = visit  # type: ignore[attr-defined] # as above
    return visit


def _end(request: HttpRequest, visit: _Visit, *, status: int) -> None:
    if visit.span is not NOTHING:
        _end_span(visit.span, request, status)
    # Probes come every few seconds: their lines would bury the others.
    write_line = access_log.debug if request.path.startswith(settings.PROBES) else access_log.info
    write_line(
        "request",
        method=request.method,
        path=_NAMED.sub(r"\1…", request.path),
        status=status,
        latency_ms=round((time.perf_counter() - visit.began_at) * 1000, 1),
    )
    match = request.resolver_match
    count_response(route=match.route if match else "", method=request.method or "", status=status)


def _end_span(span: Span, request: HttpRequest, status: int) -> None:
    route = request.resolver_match.route if request.resolver_match else ""
    span.note(
        {
            "http.request.method": request.method,
            "http.route": f"/{route}",
            "http.response.status_code": status,
            "chatbot.request_id": getattr(request, "request_id", ""),
        }
    )
    span.end(name=f"{request.method} /{route}" if route else "", error=str(status) if status >= 500 else "")


class ApiSecurityMiddleware:
    """Host check, HTTPS redirect and security headers for the API, without a thread hop."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self.security = SecurityMiddleware(lambda request: None)  # type: ignore[arg-type] # never called: only its two hooks are used
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path.startswith(settings.PROBES):
            request.get_host()  # raises DisallowedHost
        response = self.security.process_request(request) or await self.get_response(request)
        response.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        response.setdefault("Cache-Control", "no-store")
        return self.security.process_response(request, response)  # type: ignore[arg-type] # takes streams, too


class PageMetricsMiddleware(PrometheusAfterMiddleware):  # type: ignore[misc] # it has no types
    """django-prometheus's metrics of pages; of methods that nobody has heard of, it would make a label each."""

    def label_metric(self, metric: Any, request: HttpRequest, response: HttpResponseBase | None = None, **labels: str) -> Any:
        if "method" in labels:
            labels["method"] = self._method(request)
        return super().label_metric(metric, request, response, **labels)


class AdminPolicyMiddleware(MiddlewareMixin):
    """Give the admin its own Content-Security-Policy: Alpine, which its pages use, needs what all other pages forbid.

    A list whose filter in the address no column can hold answers as Django's lists do for other filters that make no sense:
    with the whole list. Django itself notices these only while it reads the rows.
    """

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        match = request.resolver_match
        is_list = match is not None and match.app_name == "admin" and (match.url_name or "").endswith("_changelist")
        if not (is_list and isinstance(error, ValueError | OverflowError | DataError) and request.GET) or ERROR_FLAG in request.GET:
            return None
        log.warning("a list could not be filtered", path=request.path, exc_info=error)
        return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.path.startswith(reverse("admin:index")):
            response._csp_config = settings.ADMIN_CONTENT_SECURITY_POLICY  # type: ignore[attr-defined] # what django-csp's decorators set
        return response
