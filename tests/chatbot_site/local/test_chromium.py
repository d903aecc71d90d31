"""Browser tests are skipped aloud on a person's machine, and never in CI."""

import os

import pytest

from chatbot_site.local import chromium, debian
from chatbot_site.local.refusal import Refusal


@pytest.fixture
def machine_without_chromium(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(chromium, "MACOS", tmp_path / "none")
    return tmp_path


def add_program(folder, name):
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(program)


def test_a_chromium_on_the_path_is_found(machine_without_chromium):
    path = add_program(machine_without_chromium, "google-chrome")
    assert chromium.ensure_chromium() == path


def test_none_is_said_aloud(machine_without_chromium, capsys):
    assert chromium.ensure_chromium() == ""
    assert "the browser tests will be skipped" in capsys.readouterr().out


def test_none_fails_in_ci(machine_without_chromium, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(Refusal, match="under CI=true browser tests may not be skipped"):
        chromium.ensure_chromium()


def test_a_wrong_name_is_refused(machine_without_chromium, monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    with pytest.raises(Refusal, match="CHROMIUM names /nowhere/chromium, which is not a program"):
        chromium.ensure_chromium()


def test_root_on_debian_installs_it(machine_without_chromium, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "os_release", lambda: ["ID=debian"])
    installer = machine_without_chromium / "apt-get"
    chromium_path = machine_without_chromium / "chromium"
    makes_it = f"echo '#!/bin/sh' > {chromium_path}; /bin/chmod 755 {chromium_path}"
    installer.write_text(f'#!/bin/sh\n[ "$1" = update ] || {{ {makes_it}; }}\n')
    installer.chmod(0o755)
    assert chromium.ensure_chromium() == str(machine_without_chromium / "chromium")
    assert "Installing Chromium" in capsys.readouterr().out


def test_a_failing_installation_is_explained(machine_without_chromium, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "os_release", lambda: ["ID=debian"])
    add_program(machine_without_chromium, "apt-get")
    (machine_without_chromium / "apt-get").write_text("#!/bin/sh\necho no network\nexit 100\n")
    assert chromium.ensure_chromium() == ""
    said = capsys.readouterr().out
    assert "no network" in said
    assert "'apt-get update -q' failed" in said


@pytest.fixture
def machine_without_a_pooler(machine_without_chromium, monkeypatch):
    monkeypatch.setattr(debian, "_PATH", str(machine_without_chromium))
    return machine_without_chromium


def ensure_pooler():
    return debian.ensure_program("pgbouncer", package="pgbouncer", tests="the transaction pooler")


def test_another_program_is_found_said_aloud_or_demanded(machine_without_a_pooler, monkeypatch, capsys):
    monkeypatch.setattr(debian, "can_install", lambda: False)
    assert ensure_pooler() == ""
    assert "No pgbouncer was found: the tests of the transaction pooler will be skipped." in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    with pytest.raises(Refusal, match="under CI=true the tests of the transaction pooler may not be skipped"):
        ensure_pooler()
    path = add_program(machine_without_a_pooler, "pgbouncer")
    assert ensure_pooler() == path


def test_another_program_is_installed(machine_without_a_pooler, monkeypatch):
    installed = []
    monkeypatch.setattr(debian, "can_install", lambda: True)
    monkeypatch.setattr(debian, "install", lambda package: installed.append(add_program(machine_without_a_pooler, package)))
    assert ensure_pooler() == installed[0]
