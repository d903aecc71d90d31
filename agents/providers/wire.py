"""The OpenAI wire: one model of one provider, called over the guarded transport.

The openai SDK says where and with which headers a provider is called, once; what it would do for every call (building typed
requests and typed chunks) costs more than the rest of a turn together, so requests are sent and answers are read here
(docs/adr/0008-a-faster-wire.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx2
import msgspec
import openai

from agents.providers.base import ModelRequest, UpstreamFailed, UpstreamTimedOut, Usage
from agents.providers.keys import UnreadableKey, key_of
from agents.providers.stream import CompletionReader
from agents.versions.live import ProviderSnapshot
from observability.logs import without
from observability.outbound import GuardedTransport, OutboundRefused, new_transport
from observability.tracing import trace_headers

# How long to wait for the usage, or for the end of the body, once the provider said that the answer is complete.
_LINGER_S: Final = 2.0
_LINGER_ENDED_S: Final = 0.05
# How much longer, as a share of that, to look at what is there already.
_ONE_MORE_LOOK: Final = 0.1
_encode: Final = msgspec.json.Encoder().encode
# Of a provider's patience: a turn's deadline is set a moment before its call is made.
_MOST_OF_IT: Final = 0.8
_MAX_JSON_BYTES: Final = 10_000_000
_MOST_REASON_CHARS: Final = 600
_MOST_MODEL_CHARS: Final = 200
_RETRYABLE_STATUSES: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
# These vendors refuse `max_tokens` for their newer models; other servers know only that name.
_NEW_NAME_HOSTS: Final = ("api.openai.com", ".openai.azure.com")


class OpenAIWire:
    """One model of one provider. A `ChatModel`."""

    def __init__(self, provider: ProviderSnapshot, model: str) -> None:
        self._provider = provider
        self._model = model

    async def start(self, request: ModelRequest) -> WireAnswer:
        """Return the answer once its first words are there.

        Raises:
            UpstreamFailed: connection, HTTP or protocol errors; `retryable` tells which may pass.
            UpstreamTimedOut: nothing came within the provider's first-token or total timeout.
        """
        loop = asyncio.get_running_loop()
        provider = self._provider
        deadline = min(request.deadline, loop.time() + provider.total_timeout_s)
        wait_s = min(provider.first_token_timeout_s, deadline - loop.time()) if request.stream else deadline - loop.time()
        response: httpx2.Response | None = None
        try:
            async with asyncio.timeout(wait_s):
                response = await self._post(request)
                answer = WireAnswer(response, provider, self._model, deadline)
                await answer.read_first()
        except BaseException as error:
            if response is not None:
                await response.aclose()
            if isinstance(error, TimeoutError):
                # Who asks for an answer sooner than the provider has to give one may not blame it.
                patience_s = provider.first_token_timeout_s if request.stream else provider.total_timeout_s
                is_fault = wait_s > _MOST_OF_IT * patience_s
                raise UpstreamTimedOut(f"no answer within {wait_s:.1f} s", retryable=False, is_billable=True, is_fault=is_fault) from None
            if isinstance(error, httpx2.RequestError):
                raise UpstreamFailed(f"the answer broke off: {error!r}", retryable=True, is_billable=True) from error
            if isinstance(error, UpstreamFailed):
                error.is_billable |= response is not None
                _make_loggable(error, provider)
                error.reason = without(error.reason, [message["content"] for message in request.messages])
            raise
        return answer

    async def _post(self, request: ModelRequest) -> httpx2.Response:
        try:
            endpoint = _endpoint(self._provider)
        except UnreadableKey as error:
            raise UpstreamFailed(error.detail, retryable=False) from error
        body = _encode(_body(request, self._model, self._provider.base_url))
        request.meter.sending(body)
        traced = trace_headers()
        headers = httpx2.Headers([*endpoint.headers.multi_items(), *traced.items()]) if traced else endpoint.headers
        message = httpx2.Request("POST", endpoint.url, headers=headers, content=body, extensions=endpoint.extensions)
        try:
            response = await _transport().handle_async_request(message)
        except httpx2.TimeoutException as error:
            raise UpstreamTimedOut("no connection within the connect timeout", retryable=True) from error
        except httpx2.TransportError as error:
            is_billable = not isinstance(error, httpx2.ConnectError)
            raise UpstreamFailed(
                f"no connection: {error}", retryable=not isinstance(error, OutboundRefused), is_billable=is_billable
            ) from error
        if response.status_code != httpx2.codes.OK:
            raise await _refusal(response)
        return response


class WireAnswer:
    """An answer that arrives. A `ModelAnswer`."""

    __slots__ = ("_asked", "_chunks", "_deadline", "_first", "_reader", "_response", "_silence_s", "failure", "model", "provider")

    def __init__(self, response: httpx2.Response, provider: ProviderSnapshot, model: str, deadline: float) -> None:
        self.provider = provider.slug
        self.model = model
        self._asked = provider
        self._response = response
        self._reader = CompletionReader()
        self._deadline = deadline
        self.failure: UpstreamFailed | None = None
        self._silence_s = provider.between_tokens_timeout_s
        self._first = ""
        # httpx2's decoder is only in the way where nothing is compressed.
        plain = "content-encoding" not in response.headers and isinstance(response.stream, httpx2.AsyncByteStream)
        self._chunks: AsyncIterator[bytes] = aiter(response.stream if plain else response.aiter_bytes())  # type: ignore[arg-type] # the join of both branches loses what they iterate

    @property
    def finish_reason(self) -> str:
        return self._reader.finish_reason or "stop"

    @property
    def usage(self) -> Usage | None:
        return self._reader.usage

    @property
    def answering_model(self) -> str:
        """Which model answered, as the provider says: often one with a date; "" where it does not say."""
        return self._reader.model[:_MOST_MODEL_CHARS] if isinstance(self._reader.model, str) else ""

    async def read_first(self) -> None:
        """Wait for the first words.

        Raises:
            UpstreamFailed: the answer ended without any.
        """
        if "event-stream" not in self._response.headers.get("content-type", ""):
            self._first = self._reader.read_json(await self._read_all())
        while not self._first and not self._reader.finished:
            self._first = self._reader.feed(await self._next_chunk())
        # A filter or a limit may leave an answer empty by design; "stop" without a word is a fault.
        if not self._first and self.finish_reason in ("stop", ""):
            raise UpstreamFailed("the answer is empty", retryable=True)

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            if self._first:
                yield self._first
                self._reader.check()
            loop = asyncio.get_running_loop()
            # The usage comes after the finish reason, and a connection can be used again only once it was read to its end.
            while chunk := await self._next_within(self._silence_s, self._deadline - loop.time()):
                if text := self._reader.feed(chunk):
                    yield text
                    self._reader.check()
        except httpx2.RequestError as error:
            if not self._reader.finished:
                self.failure = UpstreamFailed(f"the stream broke: {error!r}", retryable=False, is_fault=True)
                raise self.failure from error
        except UpstreamFailed as error:
            _make_loggable(error, self._asked)
            self.failure = error
            raise
        finally:
            await self.aclose()

    async def _next_within(self, silence_s: float, left_s: float) -> bytes:
        if self._reader.finished:
            return await self._rest(min(silence_s, left_s, _LINGER_ENDED_S if self._reader.ended else _LINGER_S))
        try:
            async with asyncio.timeout(min(silence_s, left_s)):
                return await self._next_chunk()
        except TimeoutError:
            silent = silence_s < left_s
            reason = "the stream fell silent" if silent else "the answer took too long"
            raise UpstreamTimedOut(reason, retryable=False, is_fault=True) from None

    async def _rest(self, within_s: float) -> bytes:
        """Return more of what follows a complete answer, such as its usage; b"": nothing came."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                # A process that had no core for so long learns that the time is over before it reads what came meanwhile: it looks
                # once more.
                over = loop.call_later(within_s, lambda: limit.reschedule(loop.time() + within_s * _ONE_MORE_LOOK))
                try:
                    return await anext(self._chunks, b"")
                finally:
                    over.cancel()
        return b""

    async def _next_chunk(self) -> bytes:
        chunk = await anext(self._chunks, b"")
        if not chunk:
            raise UpstreamFailed("the stream ended before the answer did", retryable=True)
        return chunk

    async def _read_all(self) -> bytes:
        body = bytearray()
        async for chunk in self._chunks:
            body += chunk
            if len(body) > _MAX_JSON_BYTES:
                raise UpstreamFailed("the answer is longer than ten megabytes", retryable=False)
        return bytes(body)

    async def aclose(self) -> None:
        await self._response.aclose()


class _Endpoint(NamedTuple):
    """Where a provider's completions are posted, and with what."""

    url: httpx2.URL
    headers: httpx2.Headers
    extensions: dict[str, Any]


@lru_cache(maxsize=100)
def _endpoint(provider: ProviderSnapshot) -> _Endpoint:
    sdk = openai.AsyncOpenAI(base_url=provider.base_url, api_key=key_of(provider) or "no-key-needed")
    known = {**sdk.default_headers, **sdk.auth_headers, "Accept-Encoding": "identity"}
    # The SDK would send the organization and project in this process's environment to every provider.
    headers = {name: str(value) for name, value in known.items() if name not in ("OpenAI-Organization", "OpenAI-Project")}
    timeout = httpx2.Timeout(None, connect=provider.connect_timeout_s).as_dict()
    return _Endpoint(sdk.base_url.join("chat/completions"), httpx2.Headers(headers), {"timeout": timeout})


@lru_cache(maxsize=1)
def _transport() -> GuardedTransport:
    return new_transport()


async def _refusal(response: httpx2.Response) -> UpstreamFailed:
    """Return what the provider answered instead of a completion."""
    try:
        said = (await response.aread()).decode(errors="replace") if response.is_error else ""
    finally:
        await response.aclose()
    return UpstreamFailed(
        f"HTTP {response.status_code}: {said}",
        retryable=response.status_code in _RETRYABLE_STATUSES,
        wait_s=_retry_after_s(response),
        is_fault=response.is_server_error or response.status_code == httpx2.codes.REQUEST_TIMEOUT,
    )


def _body(request: ModelRequest, model: str, base_url: str) -> dict[str, Any]:
    host = urlsplit(base_url).hostname or ""
    limit = "max_completion_tokens" if host.endswith(_NEW_NAME_HOSTS) else "max_tokens"
    body: dict[str, Any] = {"model": model, "messages": request.messages, limit: request.max_output_tokens}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def _make_loggable(error: UpstreamFailed, provider: ProviderSnapshot) -> None:
    # Some providers repeat the key that they refuse, and the reason goes to the log. Cut afterwards: half a key is one too.
    with contextlib.suppress(UnreadableKey):
        if key := key_of(provider):
            error.reason = error.reason.replace(key, "(the key)")
    error.reason = error.reason[:_MOST_REASON_CHARS]


def _retry_after_s(response: httpx2.Response) -> float | None:
    asked = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
