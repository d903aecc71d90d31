"""The first step of `make run`, from a machine with an old Python to an installation that was interrupted."""

import glob
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot_site.local import bootstrap
from chatbot_site.local.testing import clean_environment
from chatbot_site.settings.environment import PROJECT_DIR

OLD_PYTHONS = [
    python
    for pattern in (
        "/usr/bin/python3.[4-9]",
        "/usr/local/bin/python3.[4-9]",
        "/usr/bin/python3.10",
        f"{Path.home()}/.pyenv/versions/3.[4-9].*/bin/python3",
    )
    for python in glob.glob(pattern)
]


def test_an_old_python_gets_one_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(
        bootstrap.Refusal, match=r"Python 3\.11 or newer is needed, and .* is 3\.9\.2\. Install a newer one .* make run PYTHON="
    ):
        bootstrap.use_good_python(["run"], version=(3, 9, 2))


@pytest.mark.parametrize(
    "python", OLD_PYTHONS or [pytest.param("", marks=pytest.mark.skip(reason="this machine has no Python older than 3.11"))]
)
def test_a_real_old_python_gets_one_sentence(python):
    done = subprocess.run(
        [python, PROJECT_DIR / "chatbot_site/local/bootstrap.py", "run"], env={"PATH": "/nonexistent"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Python 3.11 or newer is needed, and ")
    assert done.stderr.count("\n") == 1


def test_an_old_python_goes_on_in_a_newer_one_of_the_machine(tmp_path, monkeypatch):
    newer = tmp_path / "python3.12"
    newer.write_text("#!/bin/sh\nexit 0\n")
    newer.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    went_on = []
    monkeypatch.setattr(os, "execv", lambda *arguments: went_on.append(arguments) or sys.exit(0))
    with pytest.raises(SystemExit):
        bootstrap.use_good_python(["run"], version=(3, 8, 0))
    assert went_on == [(str(newer), [str(newer), bootstrap.__file__, "run"])]


@pytest.mark.parametrize(
    ("system", "machine", "abi", "sentence"),
    [
        ("win32", "AMD64", "", "Windows itself is not supported. Use WSL 2"),
        ("freebsd14", "amd64", "", "The platform freebsd14 is not supported. Use Linux"),
        ("linux", "x86_64", "cpython-311-x86_64-linux-musl", "musl .* Use Linux with glibc"),
        ("linux", "riscv64", "cpython-311-riscv64-linux-gnu", "The processor riscv64 is not supported"),
    ],
)
def test_unsupported_platforms(system, machine, abi, sentence):
    with pytest.raises(bootstrap.Refusal, match=sentence):
        bootstrap.check_platform(system, machine, abi)


@pytest.mark.parametrize(("system", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")])
def test_supported_platforms(system, machine):
    bootstrap.check_platform(system, machine, "cpython-311-darwin")


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "differ from the hash"),
        ("ERROR: No matching distribution found for xllamacpp==1", "not built for this platform or Python"),
        ("WARNING: Retrying (Retry(total=0)) after connection broken\nERROR: No matching distribution found for x==1", "Check the network"),
        ("anything else", "Check the network"),
    ],
)
def test_failures_of_pip(output, sentence):
    assert sentence in bootstrap.explain_pip(output, "requirements.txt")


@pytest.fixture
def project(tmp_path):
    """A project whose packages are none, and whose command tells that it was reached."""
    local = tmp_path / "chatbot_site" / "local"
    local.mkdir(parents=True)
    shutil.copy(PROJECT_DIR / "chatbot_site/local/bootstrap.py", local)
    (local / "__main__.py").write_text("import sys; print('reached', *sys.argv[1:])")
    for name in ("requirements.txt", "requirements-local.txt", "requirements-test.txt"):
        (tmp_path / name).write_text("# nothing\n")
    return tmp_path


def make(project, *arguments, **env):
    command = [sys.executable, "chatbot_site/local/bootstrap.py", *arguments]
    return subprocess.run(command, cwd=project, env=clean_environment() | env, capture_output=True, text=True, timeout=300)


def test_installs_once_and_again_when_a_lock_file_changes_or_an_installation_was_interrupted(project):
    first = make(project, "run")
    assert "Making a virtual environment" in first.stdout
    assert first.stdout.endswith("reached run\n"), first.stderr

    assert make(project, "run").stdout == "reached run\n"

    tests = make(project, "test", "-k", "chat")
    assert "requirements-test.txt" in tests.stdout
    assert "requirements.txt" not in tests.stdout
    assert tests.stdout.endswith("reached test -k chat\n")

    (project / "requirements.txt").write_text("# changed\n")
    changed = make(project, "run")
    assert "Installing 0 packages of requirements.txt" in changed.stdout
    assert "Making a virtual environment" not in changed.stdout

    # a package without a hash is refused, and what a failed or interrupted installation left is not built upon
    (project / "requirements.txt").write_text("somepackage==1.0\n")
    failed = make(project, "run")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("Installing the packages of requirements.txt failed")
    (project / "requirements.txt").write_text("# nothing\n")
    repaired = make(project, "run")
    assert "interrupted" in repaired.stdout
    assert "Making a virtual environment" in repaired.stdout
    assert repaired.stdout.endswith("reached run\n")
    assert set(json.loads((project / ".venv" / "installed.json").read_text())) == {"requirements.txt", "requirements-local.txt"}


def test_unknown_command(project):
    done = make(project, "fly")
    assert (done.returncode, done.stderr) == (1, "Unknown command 'fly'. Use run, test or check.\n")


def test_a_project_folder_that_cannot_be_written(project):
    if os.geteuid() == 0:
        (project / ".venv").write_text("a file, because root can write everywhere")
    else:
        project.chmod(0o500)
    done = make(project, "run")
    project.chmod(0o700)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
