"""DRF's APIView for async handlers."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponseBase
from rest_framework.request import Request
from rest_framework.views import APIView


class AsyncAPIView(APIView):
    """An `APIView` whose handlers are coroutines. The steps are those of `APIView.dispatch`, in the same order.

    Nothing of `initial()` (negotiation, and the authentication, permission and throttle classes, of which this project has
    none) waits for anything, so it runs without a thread hop.
    """

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override] # a coroutine, where the base returns the response
        self.args = args
        self.kwargs = kwargs
        # DRF takes a body that comes in chunks, without a length, for none; by now it is here as a whole.
        if "CONTENT_LENGTH" not in request.META:
            request.META["CONTENT_LENGTH"] = str(len(request.body))
        self.request: Request = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        try:
            self.initial(self.request, *args, **kwargs)
            name = (self.request.method or "").lower()
            handler = getattr(self, name, self.http_method_not_allowed) if name in self.http_method_names else self.http_method_not_allowed
            response = handler(self.request, *args, **kwargs)
            if not isinstance(response, HttpResponseBase):
                response = await response
        except Exception as error:
            response = self.handle_exception(error)
        return self.finalize_response(self.request, response, *args, **kwargs)  # type: ignore[arg-type] # DRF allows any HttpResponse here; its stubs do not
