"""The whole of `make run`, but for the virtual environment: first run, a second terminal, further runs, being killed."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from chatbot_site.local import demo_model, postgresql
from chatbot_site.local.testing import clean_environment
from chatbot_site.settings.environment import PROJECT_DIR
from tests.chatbot_site.local.programs import RUN, SERVICES
from tests.ports import free_port
from tests.waiting import eventually

IPV6 = Path("/proc/net/if_inet6")


def get(port, path, *, host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, port, timeout=120)
    connection.request("GET", path, headers={"Host": "localhost"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def metrics(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def is_closed(port):
    try:
        get(port, "/health")
    except OSError:
        return True
    return False


def test_first_run_second_run_and_recovery(start, data_dir):
    port = free_port()
    provider = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "none", "DEFAULT_CHAT_MODEL": "some-model", "PORT": str(port)}
    worker_port = free_port()
    first = start(RUN, WORKER_METRICS_PORT=str(worker_port), **provider)
    first.wait_for_line("Ctrl-C stops the server.")
    assert get(port, "/health")[1]["status"] == "ok"
    assert {agent["slug"] for agent in get(port, "/api/agents")[1]["agents"]} >= {"support", "sales"}
    for shown in (
        f"curl -X POST http://localhost:{port}/api/chat/support",
        f"http://localhost:{port}/admin/",
        f"http://localhost:{port}/chat/support",
    ):
        assert shown in first.output
    assert len(re.findall(r"password \S+", first.output)) == 1

    # metrics of both, without a token
    for metrics_port in (port, worker_port):
        eventually(lambda of=metrics_port: "chatbot_database_up 1.0" in metrics(of), what=f"metrics on {metrics_port}", timeout_s=90)

    # both addresses of localhost, and no other
    if IPV6.exists() and f"{1:032x}" in IPV6.read_text():
        assert get(port, "/health", host="::1")[0] == 200
    with pytest.raises(OSError, match="refused"):
        get(port, "/health", host="127.0.0.2")

    # another terminal
    environment = clean_environment() | {"DATA_DIR": str(data_dir), "ENV_FILE": os.devnull}
    command = [
        sys.executable,
        "manage.py",
        "shell",
        "--no-imports",
        "-c",
        "from agents.models import Agent; print(Agent.objects.count(), 'agents')",
    ]
    beside = subprocess.run(command, cwd=PROJECT_DIR, env=environment, capture_output=True, text=True, timeout=120)
    assert "3 agents" in beside.stdout, beside.stderr

    # the supervisor alone is asked to stop
    marks = first.marks()
    assert {mark.name for mark in marks} == {"postgresql", "valkey", "webserver", "embedder", "worker"}
    assert first.end(signal.SIGTERM) == 0
    assert first.lines[-1] == "Stopped.\n"
    assert "Traceback" not in first.output
    assert not any(mark.is_alive() for mark in marks)

    # all data is there, and nothing is made again
    second = start(RUN, **provider)
    second.wait_for_line("Ctrl-C stops the server.")
    assert "password" not in second.output
    assert "Created" not in second.output
    seconds = float(re.search(r"Ready after ([0-9.]+) s", second.output)[1])
    assert seconds < 150  # under 5 on a machine with nothing else to do; this one runs other tests

    # the web server is killed: it comes back
    os.killpg(second.mark("webserver").pid, signal.SIGKILL)
    second.wait_for_line("The web server is back.")
    assert get(port, "/health")[0] == 200

    # the supervisor is killed: nothing goes on serving
    marks = second.marks()
    os.kill(second.process.pid, signal.SIGKILL)
    eventually(lambda: is_closed(port), what="the port is closed", timeout_s=120)
    eventually(lambda: not any(mark.is_alive() for mark in marks), what="everything is stopped", timeout_s=120)
    third = start(RUN, **provider)
    third.wait_for_line("Ctrl-C stops the server.")
    assert get(port, "/api/agents")[0] == 200
    assert third.end(signal.SIGINT) == 0


def test_the_demo_model_answers_over_the_openai_protocol(start, data_dir):
    from agents.providers.environment import DEMO_MODEL

    assert demo_model.MODEL == DEMO_MODEL
    port = free_port()
    server = demo_model.program(port, project=PROJECT_DIR, log=data_dir / "demo_model.log")
    server.patience_s = 60  # so that a busy machine does not have it killed
    server.start()
    try:
        eventually(server.ready, what="the demo model is ready", timeout_s=120)
        question = {
            "model": DEMO_MODEL,
            "max_tokens": 16,
            "temperature": 0,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        }
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/v1/chat/completions", json.dumps(question), {"Content-Type": "application/json"})
        completion = json.load(connection.getresponse())
    finally:
        server.stop()
    assert len(completion["choices"][0]["message"]["content"].split()) > 2  # it is a small model: what it says differs
    assert completion["usage"]["completion_tokens"] > 0
    assert server.process.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_root_below_a_folder_that_nobody_else_enters(start, tmp_path):

    tmp_path.chmod(0o700)
    program = start(SERVICES, DATA_DIR=tmp_path / "data")
    program.wait_for_line("READY")
    home = Path((tmp_path / "data" / "postgresql.elsewhere").read_text().strip())
    try:
        assert (home / "data" / "PG_VERSION").exists()
        assert home.stat().st_uid != 0
        assert program.end() == 0
        again = start(SERVICES, DATA_DIR=tmp_path / "data")
        again.wait_for_line("READY")
        assert "Making a PostgreSQL database" not in again.output
        assert again.end() == 0
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_root_copies_programs_that_the_other_user_cannot_read(data_dir, monkeypatch, capsys):
    package = postgresql.packaged_binaries().parent.parent
    hidden = data_dir / "hidden"
    shutil.copytree(package / "pginstall18", hidden / package.name / "pginstall18", symlinks=True)
    if (libraries := package.with_name(f"{package.name}.libs")).exists():
        shutil.copytree(libraries, hidden / libraries.name, symlinks=True)
    hidden.chmod(0o700)
    monkeypatch.setattr(postgresql, "SYSTEM_FOLDER", data_dir / "system")
    monkeypatch.setattr(postgresql, "packaged_binaries", lambda: hidden / package.name / "pginstall18" / "bin")
    first = postgresql.embedded(data_dir)
    assert first.binaries.is_relative_to(data_dir / "system")
    assert first.account.can_run(first.binaries / "initdb")
    assert "copying its programs" in capsys.readouterr().out
    assert postgresql.embedded(data_dir).binaries == first.binaries
    assert capsys.readouterr().out == ""
