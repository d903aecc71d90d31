"""Middleware of our own: the request id of pages with its access-log line, and the API's security headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

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

from chatbot_site.visits import Visit

log = structlog.get_logger(__name__)
Handler = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class RequestIdMiddleware:
    """Give every page's request an id (the client's own X-Request-ID where it is sane), and log one line when it is answered.

    The API's handler does the same for its own, from before their bodies are there.
    """

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        visit = Visit(request)
        return visit.answer(await self.get_response(request))


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
