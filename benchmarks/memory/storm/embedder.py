"""An embeddings API on 127.0.0.1 whose vectors are made of the words' hashes: texts that share words are close."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIMENSIONS = 32
MODEL = "storm"


class WordEmbedder:
    """Answers at once, or, `held`, not before it is let go."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.asked = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Answer nobody meanwhile; `asked` is set once somebody waits."""
        self.asked.clear()
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def stop(self) -> None:
        self._open.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(embedder) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
                embedder.asked.set()
                embedder._open.wait()
                data = [{"object": "embedding", "index": at, "embedding": vector_of(text)} for at, text in enumerate(texts)]
                body = json.dumps({"object": "list", "model": MODEL, "data": data, "usage": {"prompt_tokens": 0, "total_tokens": 0}})
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def vector_of(text: str) -> list[float]:
    """Return the mean direction of the words of `text`."""
    words = text.lower().split() or [""]
    total = [sum(column) for column in zip(*map(_vector_of_word, words), strict=True)]
    length = math.hypot(*total) or 1.0
    return [round(value / length, 4) for value in total]


@lru_cache(100_000)
def _vector_of_word(word: str) -> tuple[float, ...]:
    digest = hashlib.blake2b(word.encode(), digest_size=DIMENSIONS).digest()
    return tuple((byte - 127.5) / 127.5 for byte in digest)


@contextmanager
def embedders() -> Iterator[tuple[WordEmbedder, WordEmbedder]]:
    """Run an embedder, and one that can be made to stall."""
    both = WordEmbedder(), WordEmbedder()
    try:
        yield both
    finally:
        for embedder in both:
            embedder.stop()
