"""The least that Django can do with Redis: an ASGI view that answers with one GET. Nothing is stored, counted or checked."""

from __future__ import annotations

import os
from typing import Final

import redis.asyncio
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

KEY: Final = "benchmark:bare"

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY=os.environ["SECRET_KEY"], MIDDLEWARE=[])
_redis: Final = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])


async def answer(request: HttpRequest) -> HttpResponse:
    """Answer any message with what Redis holds."""
    return HttpResponse(await _redis.get(KEY), content_type="application/json")


async def health(request: HttpRequest) -> HttpResponse:
    """Tell that it runs."""
    return HttpResponse(b"{}", content_type="application/json")


urlpatterns = [path("health", health), path("api/chat/bare", answer)]
application = get_asgi_application()
