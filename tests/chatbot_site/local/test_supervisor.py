"""What the supervisor does when programs, or it itself, are killed. Real processes, real signals."""

import os
import signal
import subprocess
import sys

import dj_database_url
import psycopg
import pytest
import redis

from chatbot_site.local.folder import DataFolder
from chatbot_site.local.processes import Interrupts, Program, identity
from chatbot_site.local.refusal import Refusal
from chatbot_site.local.supervisor import Supervisor
from chatbot_site.settings.environment import PROJECT_DIR
from tests.chatbot_site.local.programs import SERVICES
from tests.waiting import eventually


def connect(program):
    return psycopg.connect(program.environment()["DATABASE_URL"], autocommit=True, connect_timeout=30)


def test_data_survives_every_kind_of_death(start):
    first = start(SERVICES)
    first.wait_for_line("READY")
    with connect(first) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    url = first.environment()["REDIS_URL"]
    assert redis.Redis.from_url(url).set("kept", "1")

    # PostgreSQL is killed
    old = first.mark("postgresql")
    os.kill(old.pid, signal.SIGKILL)
    first.wait_for_line("PostgreSQL is back.")
    assert first.mark("postgresql").pid != old.pid
    with connect(first) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]

    # Valkey is killed
    os.kill(first.mark("valkey").pid, signal.SIGKILL)
    first.wait_for_line("Valkey is back.")
    assert redis.Redis.from_url(url).ping()
    redis.Redis.from_url(url).set("saved", "1")

    # Ctrl-C in a terminal: the signal goes to the whole group
    marks = first.marks()
    os.killpg(first.process.pid, signal.SIGINT)
    assert first.process.wait(30) == 0
    assert "Traceback" not in first.output
    assert not any(mark.is_alive() for mark in marks)
    assert not first.marks()

    # the next run has the data of both; then it is killed together with its watchdog, and leaves its programs behind
    second = start(SERVICES)
    second.wait_for_line("READY")
    assert "Making a PostgreSQL database" not in second.output
    assert redis.Redis.from_url(second.environment()["REDIS_URL"]).get("saved") == b"1"
    marks = second.marks()
    os.kill(second.watchdog(), signal.SIGKILL)
    os.kill(second.process.pid, signal.SIGKILL)
    second.process.wait(10)
    assert all(mark.is_alive() for mark in marks)

    # the next run stops them and goes on
    third = start(SERVICES)
    third.wait_for_line("READY")
    assert "Stopped postgresql, which an earlier run had left behind." in third.output
    assert not any(mark.is_alive() for mark in marks)
    with connect(third) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]

    # the supervisor alone is killed: its watchdog stops the rest, and a run that comes at once waits for that
    marks = third.marks()
    os.kill(third.process.pid, signal.SIGKILL)
    third.process.wait(30)
    fourth = start(SERVICES)
    fourth.wait_for_line("READY")
    assert not any(mark.is_alive() for mark in marks)
    with connect(fourth) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
    assert fourth.end() == 0


def test_two_runs_cannot_share_a_data_folder(start, refused):
    first = start(SERVICES)
    first.wait_for_line("Starting")
    assert f"Another `make run` (process {first.process.pid}) uses the data folder" in refused(SERVICES)
    first.wait_for_line("READY")


def test_a_number_that_another_program_has_now_does_not_keep_postgresql_from_starting(start, data_dir):
    first = start(SERVICES)
    first.wait_for_line("READY")
    pid_file = data_dir / "postgresql" / "data" / "postmaster.pid"
    left = pid_file.read_text()
    assert first.end() == 0
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            pid_file.write_text("\n".join([str(stranger.pid), *left.split("\n")[1:]]))
            second = start(SERVICES)
            second.wait_for_line("READY")
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_damaged_dump_of_valkey_is_set_aside(start, data_dir):
    first = start(SERVICES)
    first.wait_for_line("READY")
    first.end()
    (data_dir / "valkey" / "dump.rdb").write_bytes(b"this is no dump")
    start(SERVICES).wait_for_line("READY")
    assert (data_dir / "valkey" / "dump.damaged.rdb").exists()


def test_a_path_too_long_for_sockets_uses_loopback_with_passwords(start, data_dir):
    program = start(SERVICES, DATA_DIR=data_dir / ("long" * 25))
    program.wait_for_line("READY")
    urls = program.environment()
    assert "@127.0.0.1:" in urls["DATABASE_URL"]
    assert "@127.0.0.1:" in urls["REDIS_URL"]
    with connect(program) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert redis.Redis.from_url(urls["REDIS_URL"]).ping()
    port = urls["REDIS_URL"].rpartition(":")[2].partition("/")[0]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=int(port)).ping()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(urls["DATABASE_URL"].replace("chatbot:", "chatbot:not-", 1))


@pytest.mark.parametrize(("name", "on_socket"), [("""Größe 'a' "b" 5%""", True), ("one, two", False)])
def test_odd_folder_names(start, data_dir, name, on_socket):
    program = start(SERVICES, DATA_DIR=data_dir / name)
    program.wait_for_line("READY")
    urls = program.environment()
    with connect(program) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert redis.Redis.from_url(urls["REDIS_URL"]).ping()
    host = dj_database_url.parse(urls["DATABASE_URL"])["HOST"]
    assert host == (str(program.data_dir / "postgresql" / "socket") if on_socket else "127.0.0.1")


def test_secrets_are_readable_by_their_owner_only(start, data_dir):
    program = start(SERVICES)
    program.wait_for_line("READY")
    files = [data_dir / "environment", data_dir / "valkey" / "password", data_dir / "valkey" / "valkey.conf"]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    for folder in ("postgresql", "postgresql/data", "postgresql/socket", "valkey"):
        assert oct((data_dir / folder).stat().st_mode & 0o777) == "0o700"


def test_a_program_that_fails_again_and_again_stops_the_supervisor(data_dir):
    interrupts = Interrupts()
    folder = DataFolder(data_dir)
    folder.open(interrupts)
    flag = data_dir / "was ready"
    code = f"import pathlib, sys; f = pathlib.Path({str(flag)!r}); f.exists() and sys.exit('FATAL: no more'); f.touch(); input()"
    program = Program(
        name="fragile",
        title="The fragile program",
        command=[sys.executable, "-c", code.replace("input()", "__import__('time').sleep(0.5)")],
        cwd=data_dir,
        env=os.environ,
        ready=flag.exists,
        log=folder.logs / "fragile.log",
    )
    with Supervisor(folder, interrupts=interrupts, project=PROJECT_DIR) as supervisor:
        supervisor.start(program)
        with pytest.raises(Refusal, match=r"The fragile program stops again and again: FATAL: no more. Its log is .*fragile.log"):
            supervisor.watch()


def test_a_stopped_process_has_no_identity():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    first = identity(process.pid)
    assert first is not None
    assert first == identity(process.pid)
    process.kill()
    eventually(lambda: identity(process.pid) is None, what="a zombie counts as gone", timeout_s=30)
    process.wait()
