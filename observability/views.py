"""Health, for load balancers and people."""

from __future__ import annotations

from datetime import UTC, datetime

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from observability.health import check_readiness


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
