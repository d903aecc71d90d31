"""A page for each error code: where the `type` of a problem document leads."""

from __future__ import annotations

from typing import NoReturn

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from observability.errors import ChatbotError


@require_safe
def explain_error(request: HttpRequest, code: str) -> HttpResponse:
    """Say what the error `code` means and what to do about it."""
    kind = _all_codes().get(code)
    if kind is None:
        raise Http404
    return render(request, "error.html", {"problem": {"title": kind.title, "status": kind.status, "detail": kind.remedy}})


def answer_nothing_here(request: HttpRequest) -> NoReturn:
    """Stand in for a page of a package that this project does not offer.

    Raises:
        Http404: always.
    """
    raise Http404


def _all_codes() -> dict[str, type[ChatbotError]]:
    found: dict[str, type[ChatbotError]] = {}
    waiting = [ChatbotError]
    while waiting:
        kind = waiting.pop()
        found.setdefault(kind.code, kind)
        waiting.extend(kind.__subclasses__())
    return found
