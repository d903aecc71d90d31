"""The tokenizer's ranks are placed without the internet, also where the file system is read-only."""

import os
import subprocess
import sys

from chatbot_site.settings.environment import PROJECT_DIR
from chatbot_site.tokenizer import RANKS, place_ranks


def test_tiktoken_counts_with_placed_ranks_and_no_network(tmp_path):
    folder = place_ranks(tmp_path / "tokenizer")
    code = (
        "import socket; socket.socket = socket.getaddrinfo = None\n"
        "import tiktoken\n"
        "print([len(tiktoken.get_encoding(name).encode('Hello, world!')) for name in ('o200k_base', 'cl100k_base')])"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"TIKTOKEN_CACHE_DIR": str(folder)}, capture_output=True, text=True)
    assert done.stdout == "[4, 4]\n", done.stderr


def test_placed_ranks_are_left_as_they_are(tmp_path):
    place_ranks(tmp_path)
    times = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert {file.name for file in times} == set(RANKS.values())
    assert place_ranks(tmp_path) == tmp_path
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == times


def test_a_folder_that_cannot_be_written_is_replaced_by_a_temporary_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "file").touch()
    folder = place_ranks(tmp_path / "file" / "tokenizer")
    assert folder.parent == tmp_path
    assert {file.name for file in folder.iterdir()} == set(RANKS.values())


def test_the_command_for_builds_needs_no_database(tmp_path):
    env = {
        "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.dev",
        "TIKTOKEN_CACHE_DIR": str(tmp_path / "ranks"),
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "manage.py", "tokenizer_ranks"], cwd=PROJECT_DIR, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "ranks").iterdir()} == set(RANKS.values())
