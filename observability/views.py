"""Health, for load balancers and people."""

from __future__ import annotations

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from observability.errors import Unauthorized
from observability.health import check_readiness
from observability.scraping import expose, may_scrape


@require_safe
async def health(request: HttpRequest) -> JsonResponse:
    """Alive: touches nothing."""
    return JsonResponse({"status": "ok", "timestamp": _now()})


@require_safe
async def ready(request: HttpRequest) -> JsonResponse:
    """Ready to serve: 503 with what failed, where something needed is missing."""
    readiness = await check_readiness()
    body = {"status": readiness.status, "timestamp": _now(), "checks": readiness.checks}
    response = JsonResponse(body, status=200 if readiness.is_ready else 503)
    if not readiness.is_ready:
        response["Retry-After"] = "5"
    return response


@require_safe
async def metrics(request: HttpRequest) -> HttpResponse:
    """What Prometheus scrapes. Outside development it has to show METRICS_TOKEN."""
    if not may_scrape(request.headers.get("Authorization", "")):
        request_id = str(getattr(request, "request_id", ""))
        document = Unauthorized("Send METRICS_TOKEN as 'Authorization: Bearer …'.").document(request_id)
        response = JsonResponse(document, status=401, content_type="application/problem+json")
        response["WWW-Authenticate"] = "Bearer"
        return response
    text, content_type = await expose()
    return HttpResponse(text, content_type=content_type)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
