"""Every error, ours and the framework's, in the same words for programs and for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core import exceptions as django_errors
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from django.test import RequestFactory
from rest_framework import exceptions as drf

from chatbot_site import problems
from chatbot_site.problems import problem_response, translate
from observability.errors import BadRequest, ChatbotError, Unavailable

CANARY = "sk-canary-postgres://user:password@host/db"


def subclasses(kind: type[ChatbotError]) -> set[type[ChatbotError]]:
    return {kind, *(found for child in kind.__subclasses__() for found in subclasses(child))}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (drf.ParseError("The body is not JSON."), 400, "bad-request"),
        (drf.NotAuthenticated(), 401, "unauthorized"),
        (drf.AuthenticationFailed(CANARY), 401, "unauthorized"),
        (drf.PermissionDenied(CANARY), 403, "forbidden"),
        (drf.NotFound(CANARY), 404, "not-found"),
        (drf.MethodNotAllowed("PUT"), 405, "method-not-allowed"),
        (drf.NotAcceptable(), 406, "not-acceptable"),
        (drf.UnsupportedMediaType("text/x"), 415, "unsupported-media-type"),
        (drf.APIException(CANARY), 500, "internal-error"),
        (Http404(CANARY), 404, "not-found"),
        (django_errors.PermissionDenied(CANARY), 403, "forbidden"),
        (django_errors.RequestDataTooBig(CANARY), 413, "payload-too-large"),
        (django_errors.DisallowedHost(CANARY), 400, "bad-request"),
        (django_errors.SuspiciousOperation(CANARY), 400, "bad-request"),
        (django_errors.TooManyFieldsSent(CANARY), 400, "bad-request"),
        (django_errors.BadRequest(CANARY), 400, "bad-request"),
        (MultiPartParserError(CANARY), 400, "bad-request"),
        (OperationalError(CANARY), 503, "unavailable"),
        (InterfaceError(CANARY), 503, "unavailable"),
        (IntegrityError(CANARY), 500, "internal-error"),
        (DataError(CANARY), 500, "internal-error"),
        (KeyError(CANARY), 500, "internal-error"),
        (RecursionError(CANARY), 500, "internal-error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_the_frameworks_errors_get_our_codes_and_say_nothing_internal(error: Exception, status: int, code: str) -> None:
    response = problem_response(translate(error), "req-12345")
    document = json.loads(response.content)
    assert response["Content-Type"] == "application/problem+json"
    assert (response.status_code, document["status"], document["type"]) == (status, status, f"/errors/{code}")
    assert document["error"] == document["title"]
    assert document["request_id"] == "req-12345"
    assert document["detail"].endswith((".", "id."))
    assert "canary" not in response.content.decode()
    assert ("Retry-After" in response) == (status == 503)


def test_field_errors_name_the_field() -> None:
    document = translate(drf.ValidationError({"message": ["is required"]})).document("r")
    assert document["error"] == "Invalid message"
    assert document["errors"] == {"message": ["is required"]}


def test_our_own_errors_pass_through_with_their_details() -> None:
    error = BadRequest("Too short.", fields={"message": ["Too short."]})
    assert translate(error) is error
    assert problem_response(Unavailable(retry_after_s=7), "r")["Retry-After"] == "7"


def test_every_error_has_a_code_of_its_own_kind_and_a_remedy() -> None:
    import agents.chat.answer
    import agents.versions.publishing  # noqa: F401 - defines errors

    for kind in subclasses(ChatbotError):
        assert kind.code == kind.code.lower()
        assert " " not in kind.code
        assert 400 <= kind.status < 600, kind
        assert kind.title, kind
        assert kind.remedy.endswith("."), kind


HANDLERS: list[tuple[Any, tuple[Any, ...], int]] = [
    (problems.bad_request, (django_errors.SuspiciousOperation(CANARY),), 400),
    (problems.forbidden, (django_errors.PermissionDenied(CANARY),), 403),
    (problems.not_found, (Http404(CANARY),), 404),
    (problems.answer_csrf_failure, (CANARY,), 403),
]


@pytest.mark.parametrize(("handler", "arguments", "status"), HANDLERS)
@pytest.mark.parametrize(
    ("path", "accept", "content_type"),
    [
        ("/chat/x", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("/chat/x", "*/*", "application/problem+json"),
        ("/api/x", "text/html", "application/problem+json"),
    ],
)
def test_people_get_a_page_and_programs_a_document(
    handler: Any, arguments: tuple[Any, ...], status: int, path: str, accept: str, content_type: str
) -> None:
    request = RequestFactory().get(path, headers={"Accept": accept})
    request.request_id = "req-<b>12345"
    response = handler(request, *arguments)
    assert (response.status_code, response["Content-Type"]) == (status, content_type)
    text = response.content.decode()
    assert "canary" not in text
    if content_type.startswith("text/html"):
        assert "<b>12345" not in text


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_fault_of_ours_tells_only_the_request_id(accept: str) -> None:
    request = RequestFactory().get("/admin/", headers={"Accept": accept})
    request.request_id = "req-12345"
    try:
        raise RuntimeError(CANARY)
    except RuntimeError:
        response = problems.server_error(request)
    text = response.content.decode()
    assert response.status_code == 500
    assert "req-12345" in text
    assert "canary" not in text
    assert "Traceback" not in text
    assert str(Path(__file__).parent) not in text
