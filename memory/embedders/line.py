"""A line to the built-in embedder for a thread that has something else to do until the answer comes.

It goes past `observability.outbound`, which needs an event loop: its address is one that only the operator's environment names.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

import msgspec

from memory.embedders.cache import Vector
from memory.embedders.client import read_vectors, request_for
from memory.embedders.configured import EmbeddingModel
from memory.embedders.failures import EmbeddingFailed

_HEADERS: Final = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
# What lies between may have dropped a connection that was idle for longer, without a word to either side.
_LONGEST_IDLE_S: Final = 30.0


class Line:
    """A connection on which one question is asked, and heard of later, until the moment `until` of the monotonic clock."""

    def __init__(self, connection: HTTPConnection, model: EmbeddingModel, *, until: float) -> None:
        self._connection = connection
        self._model = model
        self._until = until
        self._path = urlsplit(model.base_url).path.rstrip("/") + "/embeddings"
        self._asked = ""
        self.is_open = False
        """A question was asked, and the answer not read yet."""

    def ask(self, text: str) -> None:
        """Have `text` embedded, and nothing that was asked before. Should it fail, `answer` tells.

        Raises:
            TimeoutError: it is too late to ask.
        """
        if self.is_open:
            self._connection.close()
        self._asked, self.is_open = text, True
        self._limit_waits()
        try:
            self._send()
        except (HTTPException, OSError):
            self._connection.close()

    def answer(self) -> Vector:
        """Wait for the vector, of length 1, of the text that was asked for last.

        Raises:
            EmbeddingFailed: there is none.
            TimeoutError: it did not come in time.
        """
        try:
            status, body = self._receive()
        except (HTTPException, OSError):
            status, body = self._again()  # most likely the connection was closed while it was idle
        self.is_open = False
        [vector] = read_vectors(status, body, [self._asked], model=self._model)
        return vector

    def _again(self) -> tuple[int, bytes]:
        self._connection.close()
        self._limit_waits()
        try:
            self._send()
            return self._receive()
        except TimeoutError:
            raise
        except (HTTPException, OSError) as error:
            raise EmbeddingFailed(f"no connection: {error}") from error

    def _send(self) -> None:
        body = msgspec.json.encode(request_for([self._asked], model=self._model))
        self._connection.request("POST", self._path, body=body, headers=_HEADERS)

    def _receive(self) -> tuple[int, bytes]:
        self._limit_waits()
        response = self._connection.getresponse()
        return response.status, response.read()

    def _limit_waits(self) -> None:
        """Let what is waited for from here on have the time that is left."""
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no time is left to embed the question")
        self._connection.timeout = left_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(left_s)


def has_line(model: EmbeddingModel) -> bool:
    """Tell whether there is a line to `model`: to the built-in embedder, where it asks for neither TLS nor a password."""
    address = urlsplit(model.base_url)
    return model.is_builtin and address.scheme == "http" and address.username is None


@contextlib.contextmanager
def line_to(model: EmbeddingModel, *, until: float) -> Iterator[Line]:
    """A line for as long as the block lasts; its connection is kept for the next.

    Args:
        until: when all waiting ends, of `time.monotonic()`.
    """
    connection = _connection_to(model.base_url)
    line = Line(connection, model, until=until)
    try:
        yield line
    finally:
        if line.is_open:  # somebody else's question would get this one's answer
            connection.close()
        else:
            _close(_swap(_Idle(connection, model.base_url, time.monotonic())))


def close_lines() -> None:
    """Close the connection that is kept: the process ends."""
    _close(_swap(None))


@dataclass(frozen=True, slots=True)
class _Idle:
    """A connection that nobody uses, since the moment `since` of the monotonic clock."""

    connection: HTTPConnection
    url: str
    since: float


_idle: _Idle | None = None
_swapping: Final = threading.Lock()


def _swap(kept: _Idle | None) -> _Idle | None:
    """Keep `kept`, and return what was kept before."""
    global _idle
    with _swapping:
        before, _idle = _idle, kept
    return before


def _close(idle: _Idle | None) -> None:
    if idle is not None:
        idle.connection.close()


def _connection_to(url: str) -> HTTPConnection:
    idle = _swap(None)
    if idle is not None and idle.url == url and time.monotonic() - idle.since < _LONGEST_IDLE_S:
        return idle.connection
    _close(idle)
    address = urlsplit(url)
    return HTTPConnection(address.hostname or "", address.port)
