"""The request id, its log line, and the API's host check and headers."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from chatbot_site.middleware import RequestIdMiddleware

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def request_id_for(given_id: str | None) -> tuple[str, str]:
    """Return the id that the view saw and the one that the client got."""
    seen: list[str] = []

    async def view(request: HttpRequest) -> HttpResponse:
        seen.append(request.request_id)
        return HttpResponse()

    request = AsyncRequestFactory().get("/", headers={"X-Request-ID": given_id} if given_id is not None else {})
    response = asyncio.run(RequestIdMiddleware(view)(request))
    return seen[0], response["X-Request-ID"]


@pytest.mark.parametrize("sane", ["abcd1234", "01a20415-d899-7294-8ee1-0ffb4ba23ba3", "a.b:c_d-e", "x" * 64])
def test_a_sane_id_is_kept(sane: str) -> None:
    assert request_id_for(sane) == (sane, sane)


@pytest.mark.parametrize("odd", [None, "", "short", "x" * 65, "has space", "new\nline12", "quote'quote", "<script>1</script>", "ünïcödé1"])
def test_any_other_is_replaced(odd: str | None) -> None:
    seen, sent = request_id_for(odd)
    assert seen == sent
    assert UUID.fullmatch(sent)


@given(st.text(st.characters(max_codepoint=255), max_size=80))  # all that a header's bytes can be
def test_what_is_sent_back_is_always_sane(given_id: str) -> None:
    _, sent = request_id_for(given_id)
    assert re.fullmatch(r"[A-Za-z0-9._:-]{8,64}", sent)


def test_one_line_is_logged_without_query_or_body() -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=418)

    with capture_logs() as lines:
        request: Any = AsyncRequestFactory().post("/api/x?token=canary", data="canary", content_type="text/plain")
        asyncio.run(RequestIdMiddleware(view)(request))
    [line] = lines
    assert (line["method"], line["path"], line["status"], line["log_level"]) == ("POST", "/api/x", 418, "info")
    assert line["latency_ms"] >= 0
    assert "canary" not in json.dumps(line)


def test_the_api_has_strict_headers_and_sets_no_cookie(api: Any) -> None:
    for path in ("/health", "/health/ready", "/api/agents", "/api/nowhere"):
        response = api.get(path)
        assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "set-cookie" not in response.headers


def test_health_answers_probes_by_any_name_and_the_api_does_not(api: Any) -> None:
    for path, status in (("/health", 200), ("/api/agents", 400)):
        assert api.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == status
        assert api.get(path, headers={"Host": "evil.example"}).status_code == status
