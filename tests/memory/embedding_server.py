"""A server of the OpenAI embeddings wire whose vectors are made of a text's words: what shares words is close."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import socket
import threading
import time
from collections import Counter
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@lru_cache(maxsize=4096)
def _signs(word: str, dimensions: int) -> list[float]:
    seed = hashlib.sha256(word.encode()).digest()
    return [1.0 if seed[step // 8 % 32] >> step % 8 & 1 else -1.0 for step in range(dimensions)]


def vector_of(text: str, *, dimensions: int) -> list[float]:
    words = [word.strip(".,!?") for word in text.lower().split()]
    vector = [sum(column) for column in zip(*(_signs(word, dimensions) for word in words), strict=True)]
    length = math.hypot(*vector)
    return [value / length for value in vector] if length else [1.0] + [0.0] * (dimensions - 1)


class EmbeddingServer:
    """Serves any model with `dimensions`, `delay_s` late. `texts` counts what was asked for, and each word is a token."""

    def __init__(self, *, dimensions: int) -> None:
        self.dimensions, self.delay_s = dimensions, 0.0
        self.texts: Counter[str] = Counter()
        self.refused = ""
        self.calls = 0
        self._sockets: list[socket.socket] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server._sockets.append(self.connection)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                time.sleep(server.delay_s)
                status, answer = server.answer(body["input"])
                payload = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.address}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def answer(self, texts: list[str]) -> tuple[int, dict[str, Any]]:
        self.calls += 1
        if self.refused and any(self.refused in text for text in texts):
            return 400, {"error": {"message": "this text is not taken"}}
        self.texts.update(texts)
        data = [{"index": at, "embedding": vector_of(text, dimensions=self.dimensions)} for at, text in enumerate(texts)]
        tokens = sum(len(text.split()) for text in texts)
        return 200, {"object": "list", "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

    @property
    def connections(self) -> int:
        """How many connections were ever opened."""
        return len(self._sockets)

    def close_connections(self) -> None:
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
