"""The admin's sign-in, so many times a minute and address."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache

from agents.chat.refusals import RateLimited
from agents.rest.authentication import address_of
from chatbot_site.problems import answer_problem
from observability.api import client_of, count_refusal, count_request, headers_of


@never_cache
def sign_in(request: HttpRequest) -> HttpResponse:
    """Show the form, or let somebody in; whoever tries too often has to wait."""
    if request.method != "POST":
        return admin.site.login(request)
    name = client_of(address_of(request)) or "unknown"
    verdict = count_request(request, scope="sign-in", name=name, per_minute=settings.SIGN_INS_PER_MINUTE)
    if verdict.refused:
        count_refusal("rate_limit_sign_in")
    response = answer_problem(request, RateLimited(verdict, verdict.refused)) if verdict.refused else admin.site.login(request)
    for header, value in headers_of(verdict).items():
        response[header] = value
    return response
