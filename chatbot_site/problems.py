"""Errors as problem documents (RFC 9457), for every route, the framework's own errors included.

Pages that people open in a browser (the admin, the chat page) get the same words as a small page instead.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import structlog
from django.conf import settings
from django.core.exceptions import BadRequest as DjangoBadRequest
from django.core.exceptions import DisallowedHost, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.template import loader
from rest_framework import exceptions as drf

from observability.errors import BadRequest, ChatbotError, NotFound, Unauthorized, Unavailable

log = structlog.get_logger(__name__)

CONTENT_TYPE: Final = "application/problem+json"


class MethodNotAllowed(ChatbotError):
    """The address exists, but not for this method."""

    code = "method-not-allowed"
    status = 405
    title = "Method not allowed"
    remedy = "Use one of the methods that the Allow header lists."


class UnsupportedMediaType(ChatbotError):
    """The body is not declared as JSON."""

    code = "unsupported-media-type"
    status = 415
    title = "Unsupported media type"
    remedy = "Send JSON with the header 'Content-Type: application/json'."


class NotAcceptable(ChatbotError):
    """The caller accepts no representation that the route has."""

    code = "not-acceptable"
    status = 406
    title = "Not acceptable"
    remedy = "Accept application/json or text/event-stream."


class PayloadTooLarge(ChatbotError):
    """The body exceeds MAX_BODY_BYTES."""

    code = "payload-too-large"
    status = 413
    title = "Request body too large"
    remedy = "Send a smaller request body."


class Forbidden(ChatbotError):
    """The caller is known, but may not do this; or a form came without its CSRF token."""

    code = "forbidden"
    status = 403
    title = "Not allowed"
    remedy = "Sign in as somebody who may do this, or reload the page and try again."


class Internal(ChatbotError):
    """What a caller is told of a fault of ours: nothing but the request id."""


_BY_DRF_STATUS: Final[dict[int, type[ChatbotError]]] = {
    kind.status: kind for kind in (BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, UnsupportedMediaType)
}


def problem_response(error: ChatbotError, request_id: str) -> JsonResponse:
    """Render `error` as an `application/problem+json` response with its status and headers."""
    response = JsonResponse(error.document(request_id), status=error.status, content_type=CONTENT_TYPE, headers=error.headers)
    if error.retry_after_s is not None:
        response["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


def translate(error: BaseException) -> ChatbotError:
    """Return what a caller may know of `error`; the framework's exceptions get the codes of ours."""
    match error:
        case ChatbotError():
            return error
        case OperationalError() | InterfaceError():
            return Unavailable("The database cannot be reached just now. Wait for the seconds that Retry-After names, then try again.")
        case RequestDataTooBig():
            return PayloadTooLarge(f"The body may have at most {settings.MAX_BODY_BYTES:,} bytes. Send a smaller one.")
        case drf.ValidationError():
            fields = {name: [str(text) for text in texts] for name, texts in error.detail.items()} if isinstance(error.detail, dict) else {}
            return BadRequest(" ".join(f"{name}: {text}" for name, texts in fields.items() for text in texts), fields=fields)
        case drf.APIException() if error.status_code in _BY_DRF_STATUS:
            kind = _BY_DRF_STATUS[error.status_code]
            return kind(str(error.detail) if isinstance(error, drf.ParseError) else "")
        case DisallowedHost():
            return BadRequest("This server does not answer to that host name. The operator can add it to ALLOWED_HOSTS.")
        case SuspiciousOperation() | DjangoBadRequest() | MultiPartParserError():
            return BadRequest()
        case PermissionDenied():
            return Forbidden()
        case Http404():
            return NotFound()
    return Internal()


def answer_drf_exception(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """DRF's exception handler: every error of an API view as a problem document."""
    request: HttpRequest = context["request"]
    if isinstance(problem := translate(error), Internal):
        log.exception("request failed", exc_info=error)
    response = problem_response(problem, _request_id(request))
    if isinstance(error, drf.MethodNotAllowed) and (view := context.get("view")):
        response["Allow"] = ", ".join(view.allowed_methods)
    return response


def answer_wrong_method(request: HttpRequest, refusal: HttpResponseNotAllowed) -> HttpResponse:
    """Return the empty 405 of Django's method decorators as a problem document, with the same Allow header."""
    response = problem_response(MethodNotAllowed(), _request_id(request))
    response["Allow"] = refusal["Allow"]
    return response


def answer_csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form without a valid token (CSRF_FAILURE_VIEW)."""
    return answer_problem(
        request, Forbidden("The form was open for too long or cookies are off. Go back, reload the page and send it again.")
    )


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an unusable request: Django's handler400."""
    return answer_problem(request, translate(exception))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer somebody who may not do this: Django's handler403."""
    return answer_problem(request, Forbidden())


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an address that does not exist: Django's handler404."""
    return answer_problem(request, translate(exception) if isinstance(exception, ChatbotError) else NotFound())


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer what nobody caught, and log what was our fault: Django's handler500."""
    error = sys.exception()
    problem = translate(error) if error else Internal()
    if isinstance(problem, Internal):
        log.error("request failed", exc_info=error)
    return answer_problem(request, problem)


def answer_problem(request: HttpRequest, problem: ChatbotError) -> HttpResponse:
    """Answer `problem`: as a page where a person asks with a browser."""
    is_page = not request.path.startswith(settings.API_PREFIXES) and "text/html" in request.headers.get("Accept", "")
    if not is_page:
        return problem_response(problem, _request_id(request))
    response = HttpResponse(
        loader.get_template("error.html").render({"problem": problem.document(_request_id(request))}), status=problem.status
    )
    if problem.retry_after_s is not None:
        response["Retry-After"] = str(problem.retry_after_s)
    return response


def _request_id(request: HttpRequest) -> str:
    return str(getattr(request, "request_id", ""))
