"""A line to the built-in embedder for a thread that has something else to do until the answer comes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

import msgspec

from memory.embedders.cache import Vector
from memory.embedders.client import read_vectors, request_for
from memory.embedders.configured import EmbeddingModel
from memory.embedders.failures import EmbeddingFailed

_HEADERS: Final = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
# Connections that nobody uses at the moment, by address.
_idle: Final[dict[str, HTTPConnection]] = {}


class Line:
    """A connection on which one question is asked, and heard of later."""

    def __init__(self, connection: HTTPConnection, model: EmbeddingModel) -> None:
        self._connection = connection
        self._model = model
        self._path = urlsplit(model.base_url).path.rstrip("/") + "/embeddings"
        self._asked = ""
        self.is_open = False
        """A question was asked, and the answer not read yet."""

    def ask(self, text: str) -> None:
        """Have `text` embedded, and nothing that was asked before. Should it fail, `answer` tells."""
        if self.is_open:
            self._connection.close()
        self._asked, self.is_open = text, True
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
            status, body = self._receive() if self._connection.sock else self._again()
        except TimeoutError:
            raise
        except (HTTPException, OSError):
            status, body = self._again()  # most likely the connection was closed while it was idle
        self.is_open = False
        [vector] = read_vectors(status, body, [self._asked], model=self._model)
        return vector

    def _again(self) -> tuple[int, bytes]:
        self._connection.close()
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
        response = self._connection.getresponse()
        return response.status, response.read()


@contextlib.contextmanager
def line_to(model: EmbeddingModel, *, timeout_s: float) -> Iterator[Line]:
    """A line for as long as the block lasts; its connection is kept for the next. Each wait on it ends after `timeout_s`."""
    connection = _idle.pop(model.base_url, None) or _connection_to(model.base_url)
    connection.timeout = timeout_s
    if connection.sock is not None:
        connection.sock.settimeout(timeout_s)
    line = Line(connection, model)
    try:
        yield line
    finally:
        if line.is_open:  # somebody else's question would get this one's answer
            connection.close()
        else:
            _idle[model.base_url] = connection


def close_lines() -> None:
    """Close the connections that are kept: the process ends."""
    while _idle:
        _idle.popitem()[1].close()


def _connection_to(url: str) -> HTTPConnection:
    address = urlsplit(url)
    kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
    return kind(address.hostname or "", address.port)
