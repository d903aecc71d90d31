"""Sentry: an error arrives from the web, the worker and a command, with its ids and without anything that people wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.factories import unique
from tests.http_sink import Sink, http_sink
from tests.live_server import PROJECT_DIR, LiveServer
from tests.upstream import Reply, Upstream
from tests.waiting import eventually

CANARY = "canary-7b1f90"
KEY = "5f3c0ffee"


@pytest.fixture
def sentry() -> Iterator[Sink]:
    with http_sink() as sink:
        yield sink


def settings_for(sentry: Sink) -> dict[str, str]:
    return {
        "SENTRY_DSN": f"http://{KEY}@127.0.0.1:{sentry.port}/1",
        "ENVIRONMENT_NAME": "staging",
        "RELEASE": "2.4.0",
        "DJANGO_SETTINGS_MODULE": "tests.observability.broken_settings",
        "CANARY": CANARY,
    }


def events(sentry: Sink) -> list[dict[str, Any]]:
    """Return the events that arrived: an envelope is lines of JSON, a header before each item."""
    found = []
    for posted in sentry.posted:
        rows = [json.loads(line) for line in posted.body.splitlines() if line]
        found += [item for header, item in pairwise(rows) if header.get("type") == "event"]
    return found


def test_a_fault_in_the_web_arrives_with_its_ids(
    sentry: Sink, start_server: Callable[..., LiveServer], upstream: Upstream, make_chat_agent: Callable[..., Any]
) -> None:
    upstream.script(Reply("Hello"))
    agent, request_id = make_chat_agent(upstream), unique("request")
    server = start_server(**settings_for(sentry))
    with server.client() as client:
        body = {"message": f"My secret is {CANARY}"}
        answer = client.post(f"/api/chat/{agent.slug}", json=body, headers={"X-Request-ID": request_id})
    assert answer.status_code == 500
    [event] = eventually(lambda: events(sentry), what="an event in Sentry")
    assert {name: event["tags"][name] for name in ("request_id", "agent", "version", "process")} == {
        "request_id": request_id,
        "agent": agent.slug,
        "version": "1",
        "process": "web",
    }
    assert (event["environment"], event["release"], event["level"]) == ("staging", "2.4.0", "error")
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert any(frame["function"] == "break_with" for frame in event["exception"]["values"][-1]["stacktrace"]["frames"])
    everything = b"".join(posted.body for posted in sentry.posted).decode()
    for secret in (CANARY, "vars", "Authorization", "127.0.0.1:" + str(server.port)):
        assert secret not in everything
    assert CANARY not in server.log()


@pytest.mark.parametrize("command", [["worker"], ["prices", "--refresh"]], ids=["worker", "command"])
def test_a_fault_in_the_worker_or_a_command_arrives(
    sentry: Sink, server_environment: dict[str, str], live_db: None, command: list[str]
) -> None:
    environment = {**os.environ, **server_environment, **settings_for(sentry)}
    command_line = [sys.executable, "manage.py", *command]
    with subprocess.Popen(command_line, cwd=PROJECT_DIR, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            found = eventually(lambda: events(sentry), what="an event in Sentry", timeout_s=120)
        finally:
            process.terminate()
            assert CANARY.encode() not in process.communicate()[0]
    assert found[0]["tags"]["process"] == command[0]
    assert found[0]["exception"]["values"][-1]["type"] == "ValueError"
    assert CANARY not in json.dumps(found)


def test_without_a_dsn_the_sdk_is_not_even_imported(server_environment: dict[str, str]) -> None:
    code = "import django, sys; django.setup(); print('sentry_sdk' in sys.modules, 'opentelemetry.exporter' in sys.modules)"
    environment = {**os.environ, **server_environment, "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test"}
    environment = {name: value for name, value in environment.items() if name not in ("SENTRY_DSN", "OTEL_EXPORTER_OTLP_ENDPOINT")}
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_DIR, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
