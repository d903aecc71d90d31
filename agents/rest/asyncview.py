"""DRF's APIView for async handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from django.conf import settings
from django.db import Error as DatabaseError  # unlike its namesake in Django, with InterfaceError
from django.http import HttpRequest, HttpResponseBase
from django.utils.datastructures import MultiValueDict
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from agents.chat.refusals import RateLimited
from agents.rest.authentication import address_of, caller_of
from agents.rest.parsers import StrictJSONParser
from observability.api import Visit, admit, client_of, count_refusal, count_request, headers_of, limits, rules_for
from observability.errors import ChatbotError, Unauthorized

# What a request is answered that becomes no turn: not JSON, no such agent, no such key.
_MISTAKES: Final = frozenset({400, 401, 403, 404, 405, 406, 413, 415})


class JSONRequest(Request):
    """DRF's request, for what nearly all are: JSON is read without looking for who else could, and what is asked for often is at hand."""

    def __init__(self, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.META = request.META
        self.method = request.method

    def _parse(self) -> tuple[Any, MultiValueDict[str, Any]]:
        body = self._request.body
        if body and self.content_type == StrictJSONParser.media_type:
            return StrictJSONParser().parse(BytesIO(body)), MultiValueDict()
        parsed: tuple[Any, MultiValueDict[str, Any]] = super()._parse()  # type: ignore[misc] # DRF's own, missing from the stubs
        return parsed


class AsyncAPIView(APIView):
    """An `APIView` whose handlers are coroutines. The steps are those of `APIView.dispatch`, in the same order.

    Of `initial()` only the negotiation is left, as this project has no authentication, permission and throttle classes, and no
    versions: it waits for nothing, so it runs without a thread hop. Requests are limited here, but for those of routes that do so
    themselves (`counts_itself`): of theirs, those that never get so far.
    """

    counts_itself = False

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[BaseRenderer, str]:
        """Choose as DRF does. Nothing but the Accept header counts here, and few are ever sent: each is read once."""
        if force:
            return super().perform_content_negotiation(request, force)
        place, media_type = _chosen(request.META.get("HTTP_ACCEPT", "*/*"), tuple(self.renderer_classes))
        return self.get_renderers()[place], media_type

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Choose the representation: of what DRF does here else, this project has nothing."""
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request)

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        return JSONRequest(
            request,
            parsers=self.get_parsers(),
            authenticators=self.get_authenticators(),
            negotiator=self.get_content_negotiator(),
            parser_context=self.get_parser_context(request),
        )

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
            if self.counts_itself and _is_mistake(error):
                try:
                    standing = await _count_mistake(request)
                except RateLimited as refusal:
                    error = refusal
            response = self.handle_exception(error)
        for name, value in standing.items():
            response[name] = value
        return self.finalize_response(self.request, response, *args, **kwargs)  # type: ignore[arg-type] # DRF allows any HttpResponse here; its stubs do not


@lru_cache(maxsize=256)
def _chosen(accept: str, classes: tuple[type[BaseRenderer], ...]) -> tuple[int, str]:
    """Return which of the renderers DRF chooses for this Accept header, by its place, and the media type."""
    request = HttpRequest()
    request.META["HTTP_ACCEPT"] = accept
    renderers = [renderer() for renderer in classes]
    renderer, media_type = DefaultContentNegotiation().select_renderer(Request(request), renderers)
    return renderers.index(renderer), media_type


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


def _is_mistake(error: Exception) -> bool:
    """Tell whether a request is refused for what it is, before any limit has counted it."""
    status = error.status if isinstance(error, ChatbotError) else getattr(error, "status_code", 500)
    return status in _MISTAKES


async def _count_mistake(request: HttpRequest) -> Mapping[str, str]:
    """Count a chat request that becomes no turn against the limits on requests of its address, or of its key.

    Raises:
        RateLimited: there were too many within this minute.
    """
    try:
        known = await limits.get()
        key_id = (await caller_of(request)).key_id
    except Unauthorized:
        key_id = ""
    except DatabaseError:  # then nothing is known of limits, or of the key
        return {}
    rules = rules_for(known, address=address_of(request) or "unknown", key=key_id)
    visit = Visit(id="", rules=[rule for rule in rules if rule.measure == "requests"], lease_s=0)
    [verdict] = await asyncio.to_thread(admit, [visit])
    if verdict.refused:
        raise RateLimited(verdict, verdict.refused)
    return headers_of(verdict)
