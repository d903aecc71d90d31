"""The Procfile's `web` line, as a host starts it."""

import contextlib
import http.client
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gunicorn.config import Config

from chatbot_site.settings.environment import PROJECT_DIR
from chatbot_site.webworker import ServerLogger
from tests.ports import free_port
from tests.waiting import eventually

PROCFILE = dict(line.split(": ", 1) for line in (PROJECT_DIR / "Procfile").read_text().splitlines())


def health(host, port):
    connection = http.client.HTTPConnection(host, port, timeout=120)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/health")
        return connection.getresponse().status
    return None


@pytest.fixture
def web(tmp_path):
    """The `web` line in production's settings, with an empty home folder; yields its process and port."""
    port = free_port()
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PORT": str(port),
        "DATABASE_URL": os.environ["DATABASE_URL"],
        "REDIS_URL": os.environ["REDIS_URL"],
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ALLOWED_HOSTS": "bots.example.com",
        "DATA_DIR": str(tmp_path / "data"),
        "ENV_FILE": os.devnull,
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(shlex.split(PROCFILE["web"]), cwd=PROJECT_DIR, env=env, stdout=log, stderr=log)
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


def test_web_listens_on_both_families_and_stops_when_asked(web, tmp_path):
    process, port = web
    eventually(lambda: health("127.0.0.1", port) == 200, what="the server answers", timeout_s=120)
    if Path("/proc/net/if_inet6").exists():
        assert health("::1", port) == 200
    assert not (tmp_path / ".gunicorn").exists()  # no control socket
    assert {file.name for file in (tmp_path / "data" / "tokenizer").iterdir()}
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]  # gunicorn's own, too
    assert {"Handling signal: term", "Shutting down: Master"} <= {line["event"] for line in lines}


def test_gunicorn_puts_lines_of_requests_together_only_for_who_asks_for_them():
    settings = Config()
    settings.set("logconfig_dict", {"root": {"level": "INFO"}})
    assert not ServerLogger(settings).access_log_enabled
    settings.set("accesslog", "-")
    assert ServerLogger(settings).access_log_enabled


def test_a_wrong_setting_is_one_sentence():
    command = [sys.executable, "-m", "gunicorn", "chatbot_site.asgi:application", "-c", "gunicorn.conf.py"]
    env = {"PATH": os.environ["PATH"], "PORT": "many", "ENV_FILE": os.devnull}
    done = subprocess.run(command, cwd=PROJECT_DIR, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "PORT is not usable" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_release_line_names_commands_that_exist():
    from django.core.management import get_commands

    named = [part.split()[2] for part in PROCFILE["release"].split(" && ")]
    assert named == ["migrate", "setup"]
    assert set(named) <= set(get_commands())
