"""DRF's APIView for async handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from rest_framework.request import Request
from rest_framework.views import APIView

from agents.chat.refusals import RateLimited
from agents.rest.authentication import address_of, caller_of
from observability.api import client_of, count_refusal, count_request, headers_of
from observability.errors import Unauthorized


class AsyncAPIView(APIView):
    """An `APIView` whose handlers are coroutines. The steps are those of `APIView.dispatch`, in the same order.

    Nothing of `initial()` (negotiation, and the authentication, permission and throttle classes, of which this project has
    none) waits for anything, so it runs without a thread hop. Requests are limited here, but for those of routes that do so
    themselves (`counts_itself`).
    """

    counts_itself = False

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override] # a coroutine, where the base returns the response
        self.args = args
        self.kwargs = kwargs
        # DRF takes a body that comes in chunks, without a length, for none; by now it is here as a whole.
        if "CONTENT_LENGTH" not in request.META:
            request.META["CONTENT_LENGTH"] = str(len(request.body))
        self.request: Request = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        standing: Mapping[str, str] = {}
        try:
            self.initial(self.request, *args, **kwargs)
            if not self.counts_itself:
                standing = await _count(request)
            name = (self.request.method or "").lower()
            handler = getattr(self, name, self.http_method_not_allowed) if name in self.http_method_names else self.http_method_not_allowed
            response = handler(self.request, *args, **kwargs)
            if not isinstance(response, HttpResponseBase):
                response = await response
        except Exception as error:
            response = self.handle_exception(error)
        for name, value in standing.items():
            response[name] = value
        return self.finalize_response(self.request, response, *args, **kwargs)  # type: ignore[arg-type] # DRF allows any HttpResponse here; its stubs do not


async def _count(request: HttpRequest) -> Mapping[str, str]:
    """Count a request of a key, or of an address that shows no valid one, and return the headers that tell how it stands.

    Raises:
        RateLimited: there were too many within this minute.
    """
    if not settings.API_REQUESTS_PER_MINUTE:
        return {}
    try:
        key_id = (await caller_of(request)).key_id
    except Unauthorized:  # who tries keys is counted, too
        key_id = ""
    name = f"key {key_id}" if key_id else client_of(address_of(request))
    verdict = await asyncio.to_thread(count_request, request, scope="api", name=name, per_minute=settings.API_REQUESTS_PER_MINUTE)
    if verdict.refused:
        count_refusal("rate_limit_api")
        raise RateLimited(verdict, verdict.refused)
    return headers_of(verdict)
