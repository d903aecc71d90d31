"""*Test the connection*: what an operator is told of a provider, in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx2
import pytest

from agents.models import Provider
from agents.providers.keys import seal
from tests.factories import make_provider, make_user

SignIn = Callable[..., httpx2.Client]


class Answering(BaseHTTPRequestHandler):
    """Answers every GET with the status and body in its path: `/401/no/models`."""

    def do_GET(self) -> None:
        status, body = self.path.split("/")[1:3]
        self.send_response(int(status))
        if body == "endless":
            self.end_headers()
            with suppress(ConnectionError):
                while True:
                    self.wfile.write(b"[" * 65_536)
        content = json.dumps({"data": [{"id": "known-model"}]}).encode() if body == "list" else body.encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture(scope="module")
def somebody() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def probe(client: httpx2.Client, provider: Provider) -> dict[str, Any]:
    response = client.post(f"/admin/agents/provider/{provider.pk}/probe/")
    assert response.status_code == 200
    return response.json()


@pytest.mark.parametrize(
    ("path", "model", "key", "ok", "words"),
    [
        ("/200/list", "known-model", "sk-secret", True, "accepts the key, and offers 1 model."),
        ("/200/list", "", "", True, "It answers, and offers 1 model."),
        ("/200/list", "typo", "", False, "typo is not among them"),
        ("/200/nonsense", "m", "", False, "not as an OpenAI-compatible API does"),
        ("/200/endless", "m", "", False, "not as an OpenAI-compatible API does"),
        ("/401/no", "m", "sk-secret", False, "refuses the key"),
        ("/401/no", "m", "", False, "wants a key"),
        ("/404/no", "m", "", False, "end in /v1?"),
        ("/302/no", "m", "", False, "status 302"),
    ],
)
def test_what_came_of_it(path: str, model: str, key: str, ok: bool, words: str, somebody: str, signed_in: SignIn) -> None:
    provider = make_provider(base_url=somebody + path, default_model=model, encrypted_key=seal(key))
    answer = probe(signed_in(make_user(role="operator")), provider)
    assert answer["ok"] is ok
    assert words in answer["text"]
    assert "sk-secret" not in answer["text"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "http://169.254.169.254/latest", "http://10.0.0.1/v1"])
def test_closed_and_forbidden_addresses(address: str, signed_in: SignIn) -> None:
    answer = probe(signed_in(make_user(role="operator")), make_provider(base_url=address))
    assert answer["ok"] is False
    assert answer["text"]


@pytest.mark.parametrize("role", [None, "", "editor"])
def test_only_those_who_may_change_providers(role: str | None, somebody: str, signed_in: SignIn) -> None:
    provider = make_provider(base_url=f"{somebody}/200/list")
    client = signed_in(None if role is None else make_user(role=role))
    assert client.post(f"/admin/agents/provider/{provider.pk}/probe/").status_code == 403


def test_unknown_providers_and_other_methods(signed_in: SignIn) -> None:
    client = signed_in(make_user(role="operator"))
    assert client.post("/admin/agents/provider/999999999/probe/").status_code == 404
    assert client.get("/admin/agents/provider/1/probe/").status_code == 405
