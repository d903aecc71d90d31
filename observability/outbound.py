"""The one guarded HTTP client: everything this server calls by itself goes through here.

But one: the built-in embedder, whose address only the environment names, is asked on a line of its own for a question that is alone
(memory/embedders/line.py).

It connects only to public addresses, unless the operator lists the host in OUTBOUND_ALLOWED_HOSTS (environment only). Names
are resolved here and the vetted address is the one connected to, so a name that changes its mind (DNS rebinding) gains
nothing. Redirects are never followed, and proxies from the environment are not used.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
import httpx2
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from django.conf import settings

from observability.public_addresses import is_listed, is_public

_READ_BYTES: Final = 64 * 1024
# An error's body is for a line in the log: what is longer is not read.
_MOST_ERROR_BYTES: Final = 64 * 1024


class OutboundRefused(httpx2.ConnectError):
    """The address is not one this server may call."""


class _NoPublicAddress(OSError):
    """A name stands for private addresses only."""


def is_allowed_by_operator(host: str, port: int) -> bool:
    """Tell whether OUTBOUND_ALLOWED_HOSTS names `host` or `host:port`."""
    return is_listed(host, port, allowed=settings.OUTBOUND_ALLOWED_HOSTS)


def new_client() -> httpx2.AsyncClient:
    """Return a client over the guarded transport."""
    return httpx2.AsyncClient(transport=new_transport(), follow_redirects=False, trust_env=False)


def new_transport() -> GuardedTransport:
    """Return the guarded transport by itself. Its sockets live as long as the event loop that first used them."""
    transport = GuardedTransport()
    _transports.add(transport)
    return transport


async def close_transports() -> None:
    """Close every outgoing connection of this process."""
    for transport in list(_transports):
        await transport.aclose()


class GuardedTransport(httpx2.AsyncBaseTransport):
    """httpx2's transport seam over aiohttp, whose connections cost less than httpx2's own (docs/adr/0002-async-path.md)."""

    def __init__(self) -> None:
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        _refuse_private_literal(request.url)
        timeout = request.extensions.get("timeout", {})
        connect_s = timeout.get("connect")
        with _httpx2_errors():
            response = await self._session().request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=request.content,
                allow_redirects=False,
                # `connect` counts the name's resolution too, `sock_connect` alone does not.
                timeout=aiohttp.ClientTimeout(connect=connect_s, sock_connect=connect_s, sock_read=timeout.get("read")),
            )
        return httpx2.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response),
            request=request,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (response.reason or "").encode()},
        )

    async def aclose(self) -> None:
        for session in list(self._sessions.values()):
            await session.close()
        self._sessions.clear()

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            connector = aiohttp.TCPConnector(limit=0, resolver=_GuardedResolver(), ttl_dns_cache=30, keepalive_timeout=30)
            self._sessions[loop] = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=_READ_BYTES
            )
        return self._sessions[loop]


_transports: WeakSet[GuardedTransport] = WeakSet()


class _Body(httpx2.AsyncByteStream):
    """The answer's bytes, as they arrive."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received_bytes = 0
        with _httpx2_errors():
            async for data in self._response.content.iter_any():
                yield data
                received_bytes += len(data)
                if self._response.status >= 400 and received_bytes > _MOST_ERROR_BYTES:
                    break

    async def aclose(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()  # an unfinished answer: hang up, so that the other side stops working


class _GuardedResolver(AbstractResolver):
    """Resolves names and drops private addresses."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if is_allowed_by_operator(host, port):
            return found
        vetted = [result for result in found if is_public(result["host"])]
        if not vetted:
            raise _NoPublicAddress(_refusal(host))
        return vetted

    async def close(self) -> None:
        await self._inner.close()


def _refuse_private_literal(url: httpx2.URL) -> None:
    try:
        private = not is_public(url.host.partition("%")[0])
    except ValueError:
        # A name: the resolver vets what it stands for. But 2130706433 and 0177.1 are addresses to the operating system, not names.
        private = url.host.replace(".", "").isdigit()
    if private and not is_allowed_by_operator(url.host, url.port or (443 if url.scheme == "https" else 80)):
        raise OutboundRefused(_refusal(url.host))


def _refusal(host: str) -> str:
    return f"{host} is not a public address. If this server may call it, the operator adds it to OUTBOUND_ALLOWED_HOSTS."


@contextmanager
def _httpx2_errors() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        kind: Any = httpx2.ConnectTimeout if isinstance(error, aiohttp.ConnectionTimeoutError) else httpx2.ReadTimeout
        raise kind(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, _NoPublicAddress):
            raise OutboundRefused(str(error.os_error)) from error
        raise httpx2.ConnectError(str(error)) from error
    except aiohttp.ClientPayloadError as error:
        raise httpx2.RemoteProtocolError(str(error)) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise httpx2.UnsupportedProtocol(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx2.ReadError(str(error)) from error
