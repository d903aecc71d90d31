"""A data folder that PostgreSQL's user can enter, and programs that use it."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.chatbot_site.local.programs import Started


@pytest.fixture
def data_dir():
    """A short-lived data folder that every user may pass through, as PostgreSQL's must when the tests run as root."""
    path = Path(tempfile.mkdtemp(prefix="chatbot-data-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start(data_dir):
    """Start programs on `data_dir`; whatever still runs at the end is stopped."""
    started = []

    def go(command, **env):
        program = Started(command, data_dir=env.pop("DATA_DIR", data_dir), **env)
        started.append(program)
        return program

    yield go
    for program in started:
        if program.process.poll() is None:
            program.end()
    for program in started:
        for mark in program.marks():
            mark.stop()


@pytest.fixture
def refused(start):
    """Start a program that is expected to refuse; return its one sentence."""

    def go(command, **env):
        program = start(command, **env)
        code = program.process.wait(60)
        program.reader.join(10)
        assert code == 1, program.output
        assert "Traceback" not in program.output
        return program.lines[-1]

    return go
