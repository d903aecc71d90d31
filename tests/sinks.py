"""Where alerts arrive in tests: real servers on this machine that keep what they were sent."""

from __future__ import annotations

import email
import email.policy
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from tests.ports import free_port

SLACK_PATH = "/services/T0AAAAAAA/B0BBBBBBB/s3cr3tSlackToken"
DISCORD_PATH = "/api/webhooks/1234567890/s3cr3tDiscordToken"


class HttpSink:
    """Takes what is posted, and answers as Slack, Discord or anybody does, or with the status that `answers` says."""

    def __init__(self) -> None:
        self.answers = 200
        self.waits_s = 0.0
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.tried = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                sink.tried += 1
                time.sleep(sink.waits_s)
                if sink.answers < 300:
                    sink.taken.append((self.path, body))
                self.send_response(sink.answers)
                if sink.answers in range(300, 400):
                    self.send_header("Location", f"{sink.url}/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, body in self.taken]

    @property
    def texts(self) -> list[str]:
        """Every line that came, whatever its wrapping."""
        return [line for body in self.bodies for line in _text(body).split("\n") if line]


def _text(body: dict[str, Any]) -> str:
    if "attachments" in body:  # Slack
        return "\n".join(f"{part.get('title', '')}\n{part['text']}" for part in body["attachments"])
    return str(body.get("text") or body.get("content") or "")


@contextmanager
def http_sink() -> Iterator[HttpSink]:
    sink = HttpSink()
    thread = threading.Thread(target=sink.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield sink
    finally:
        sink.server.shutdown()
        thread.join()
        sink.server.server_close()


class MailSink:
    """An SMTP server that keeps what it takes, and refuses everybody while `refuses`."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refuses = False
        self.controller = Controller(self, hostname="127.0.0.1", port=free_port())

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.controller.port}"

    @property
    def url(self) -> str:
        return f"smtp://{self.host}?from=alerts@example.org"

    @property
    def texts(self) -> list[str]:
        return [line for mail in self.mails for line in mail.get_content().splitlines() if line]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.refuses:
            return "451 come back later"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        return "250 OK"


@contextmanager
def mail_sink() -> Iterator[MailSink]:
    sink = MailSink()
    sink.controller.start()
    try:
        yield sink
    finally:
        sink.controller.stop()


@contextmanager
def black_hole() -> Iterator[str]:
    """A host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"
