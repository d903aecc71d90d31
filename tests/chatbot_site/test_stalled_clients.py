"""Clients that keep their connection open and read nothing: a stream must not wait for them for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from django.http import StreamingHttpResponse

from chatbot_site import handler


@pytest.mark.parametrize("silent_upstream", [False, True], ids=["in a part", "in a heartbeat"])
def test_a_stream_that_nobody_reads_is_given_up(silent_upstream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(handler, "STALLED_S", 0.2)
    closed = []

    async def parts() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            if silent_upstream:
                await asyncio.Event().wait()
            while True:
                yield b"more"
        finally:
            closed.append(True)

    sent = []

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)
        if len(sent) > 2:  # the headers and the first part fit into the socket's buffer
            await asyncio.Event().wait()

    async def serve() -> None:
        with pytest.raises(handler.ClientLeft):
            await handler.ApiHandler()._send(StreamingHttpResponse(parts()), send)

    asyncio.run(asyncio.wait_for(serve(), 60))
    assert closed == [True]


def test_a_slow_reader_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(handler, "STALLED_S", 2.0)

    async def parts() -> AsyncIterator[bytes]:
        for number in range(10):
            yield b"%d;" % number

    sent = []

    async def send(message: Mapping[str, Any]) -> None:
        await asyncio.sleep(0.25)
        sent.append(message.get("body", b""))

    for _ in range(3):  # who gets no core for two seconds is rightly taken for one who reads nothing
        sent.clear()
        with contextlib.suppress(handler.ClientLeft):
            asyncio.run(asyncio.wait_for(handler.ApiHandler()._send(StreamingHttpResponse(parts()), send), 60))
            break
    assert b"".join(body for body in sent if body != handler.HEARTBEAT) == b"".join(b"%d;" % number for number in range(10))
