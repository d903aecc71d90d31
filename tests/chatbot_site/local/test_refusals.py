"""What is in the way gets one sentence with the remedy, no traceback, and exit code 1."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import psycopg
import pytest

from chatbot_site.local import external, postgresql
from chatbot_site.local.processes import Interrupts
from chatbot_site.local.refusal import Refusal
from chatbot_site.local.webserver import usable_addresses
from tests.chatbot_site.local.programs import RUN, SERVICES
from tests.ports import free_port


def test_busy_port(refused):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refused(RUN, PORT=str(port)) == f"Port {port} is in use. Stop what uses it, or choose another: make run PORT={port + 1}\n"


def test_port_that_is_busy_on_ipv6_only():
    try:
        other = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with other, pytest.raises(Refusal, match="is in use"):
        usable_addresses(other.getsockname()[1])


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("PORT", "http", "PORT is not usable"),
        ("WEB_CONCURRENCY", "0", "WEB_CONCURRENCY is not usable"),
        ("DATABASE_URL", "mysql://localhost/x", "DATABASE_URL is not usable: Value error, only PostgreSQL is supported"),
        ("DATABASE_URL", "postgres://user:hidden@127.0.0.1:9/x", "DATABASE_URL cannot be reached (postgres://127.0.0.1:9/x:"),
        ("REDIS_URL", "redis://:hidden@127.0.0.1:9/0", "REDIS_URL cannot be reached (redis://127.0.0.1:9/0:"),
    ],
)
def test_bad_settings(refused, setting, value, sentence):
    said = refused(RUN, **{"PORT": str(free_port()), setting: value})
    assert said.startswith(sentence)
    assert "hidden" not in said
    assert "Set it to" in said or "leave" in said


def test_data_folder_that_is_a_file(refused, data_dir):
    (data_dir / "file").touch()
    file = data_dir / "file"
    said = refused(SERVICES, DATA_DIR=file)
    assert said == (
        f"The data folder {file} cannot be made because a file has that name. "
        "Move the file away, or choose another folder with DATA_DIR=…\n"
    )


def test_data_folder_that_cannot_be_written(refused, data_dir):
    if os.geteuid() == 0:
        folder = Path("/proc/chatbot")  # not even root can make folders there
    else:
        folder = data_dir / "locked" / "data"
        folder.parent.mkdir(mode=0o500)
    said = refused(SERVICES, DATA_DIR=folder)
    assert said.startswith(f"The data folder {folder} cannot be")
    assert "DATA_DIR=…" in said


def test_full_disk(refused, data_dir):
    small = data_dir / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("only root can make a small disk to fill, where the system lets it")
    try:
        small.chmod(0o711)
        said = refused(SERVICES, DATA_DIR=small / "data")
        assert "is full" in said
        assert "about 300 MB are needed" in said
        (small / "filling").write_bytes(bytes(7 * 1024 * 1024))
        with pytest.raises(OSError, match="No space"):
            (small / "more").write_bytes(bytes(4 * 1024 * 1024))
        (small / "more").unlink()
        said = refused(SERVICES, DATA_DIR=small / "data")
        assert "is full" in said
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen on every port")
def test_port_of_root():
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        pytest.skip("this machine lets everybody listen on every port")
    with pytest.raises(Refusal, match="Only root may listen on port 1"):
        usable_addresses(1)


def test_database_of_another_major_version(refused, start, data_dir):
    program = start(SERVICES)
    program.wait_for_line("READY")
    program.end()
    (data_dir / "postgresql" / "data" / "PG_VERSION").write_text("12\n")
    said = refused(SERVICES)
    assert "was written by PostgreSQL 12, and the embedded one is 18" in said


def serve(database, *, data_dir):
    """Start `database`; return the program."""
    interrupts = Interrupts()
    database.prepare(interrupts)
    program = database.program(log=data_dir / "postgresql.log")
    program.start()
    assert interrupts.wait_for(program.ready, timeout_s=90)
    return program


def test_database_without_pgvector(data_dir):
    package = postgresql.packaged_binaries().parent.parent
    copy = data_dir / "programs" / package.name
    shutil.copytree(
        package / "pginstall18", copy / "pginstall18", ignore=shutil.ignore_patterns("vector*", "include", "*.a"), symlinks=True
    )
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, data_dir / "programs" / libraries.name, symlinks=True)
    account = postgresql.unprivileged_account()
    database = postgresql.PostgreSQL(data_dir / "postgresql", copy / "pginstall18" / "bin", account, durable=False)
    program = serve(database, data_dir=data_dir)
    try:
        with pytest.raises(Refusal, match=r"lacks the pgvector extension. Install it there .*, or leave DATABASE_URL out"):
            external.check_database(database.url)
    finally:
        program.stop()


def test_database_whose_user_may_not_create_pgvector(data_dir):
    database = postgresql.embedded(data_dir, durable=False)
    program = serve(database, data_dir=data_dir)
    try:
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE small LOGIN PASSWORD 'small'")
            small = re.sub("//chatbot:[^@]+@", "//small:small@", database.url)
            with pytest.raises(
                Refusal, match=r"may not create the pgvector extension. Have an administrator run there: CREATE EXTENSION vector"
            ):
                external.check_database(small)
            external.check_database(database.url)
            connection.execute("CREATE EXTENSION vector")  # the check itself left none behind
            external.check_database(small)
    finally:
        program.stop()
