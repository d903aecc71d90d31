"""*Test the connection*: ask a saved provider for its list of models, and say in words what came of it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httpx2
import msgspec
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse

from agents.models import Provider
from agents.providers.keys import key_of
from observability.api import run_burst
from observability.errors import ChatbotError
from observability.outbound import OutboundRefused, new_client

from .permissions import may_change_providers

WITHIN_S: Final = 8.0
MOST_BYTES: Final = 2_000_000


async def probe(request: HttpRequest, provider_id: int) -> HttpResponseBase:
    """Answer `{"ok", "text"}`. No database connection is held while the provider is asked."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    provider = await run_burst(_admit, request, provider_id)
    try:
        ok, text = await _ask(provider)
    except ChatbotError as error:
        ok, text = False, error.detail
    return JsonResponse({"ok": ok, "text": text})


def _admit(request: HttpRequest, provider_id: int) -> Provider:
    if not may_change_providers(request):
        raise PermissionDenied
    provider = Provider.objects.filter(pk=provider_id).first()
    if provider is None:
        raise Http404
    return provider


async def _ask(provider: Provider) -> tuple[bool, str]:
    key = key_of(provider)
    # Unpacked, a small answer could become a huge one.
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        async with asyncio.timeout(WITHIN_S), new_client() as client:
            status, content = await _fetch(client, f"{provider.base_url.rstrip('/')}/models", headers=headers)
    except OutboundRefused as error:
        return False, str(error)
    except (TimeoutError, httpx2.TimeoutException):
        return False, f"No answer within {WITHIN_S:.0f} seconds. Check the address, and that the server runs."
    except httpx2.HTTPError:
        return False, "The address cannot be reached. Check it, and that the server runs."
    return _judge(provider, status=status, content=content, has_key=bool(key))


async def _fetch(client: httpx2.AsyncClient, url: str, *, headers: dict[str, str]) -> tuple[int, bytes]:
    content = b""
    async with client.stream("GET", url, headers=headers, timeout=WITHIN_S) as response:
        async for part in response.aiter_raw():
            content += part
            if len(content) > MOST_BYTES:
                break
    return response.status_code, content


def _judge(provider: Provider, *, status: int, content: bytes, has_key: bool) -> tuple[bool, str]:
    if status in (401, 403):
        return False, "It refuses the key. Enter it again." if has_key else "It wants a key. Enter one."
    if status == 404:
        return False, "Something answers there, but it has no list of models. Does the address end in /v1?"
    if status != 200:
        return False, f"It answers with the status {status}. Try again later, or check the address."
    models = _models_in(content)
    if models is None:
        return False, "Something answers there, but not as an OpenAI-compatible API does. Check the address."
    found = f"It answers{' and accepts the key' if has_key else ''}, and offers {len(models)} model{'' if len(models) == 1 else 's'}"
    if provider.default_model and models and provider.default_model not in models:
        return False, f"{found}, but {provider.default_model} is not among them. Choose another default model."
    return True, f"{found}."


def _models_in(content: bytes) -> list[str] | None:
    try:
        listed: Any = msgspec.json.decode(content)
        return [str(model["id"]) for model in listed["data"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
