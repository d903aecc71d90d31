"""A disk without space: what is new is not told to Prometheus, and the process goes on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

_FIRST_BYTES = 65_536
# More series than a file of the first size has room for; then one that was there before is counted again, and one that has no place.
_COUNTING = """
from observability import metrics
metrics.messages.of("first", "done").inc()
for number in range(1500):
    metrics.messages.of(f"bot-{number}", "done").inc()
metrics.messages.of("first", "done").inc()
metrics.messages.of("bot-1499", "done").inc()
print("alive", flush=True)
"""


def count(folder: Path, *, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", _COUNTING], env=environment, preexec_fn=before, capture_output=True, text=True, check=False
    )


def value(folder: Path, agent: str) -> float | None:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call] # prometheus_client's own
    return registry.get_sample_value("chatbot_messages_total", {"agent": agent, "outcome": "done"})


def assert_went_on(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stderr
    assert "alive" in done.stdout
    assert (done.stdout + done.stderr).count("no space for metrics") == 1
    assert value(folder, "first") == 2
    assert value(folder, "bot-1499") is None


def test_with_space_all_is_told(tmp_path: Path) -> None:
    done = count(tmp_path)
    assert (done.returncode, "no space" in done.stdout + done.stderr) == (0, False)
    assert value(tmp_path, "first") == value(tmp_path, "bot-1499") == 2
    for file in tmp_path.glob("*.db"):
        assert file.stat().st_blocks * 512 >= file.stat().st_size >= _FIRST_BYTES, f"{file.name} has holes"


def test_a_file_that_may_not_grow_stops_no_process(tmp_path: Path) -> None:
    done = count(tmp_path, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (_FIRST_BYTES, _FIRST_BYTES)))
    assert_went_on(done, tmp_path)


def test_without_any_space_nothing_is_told_and_nothing_stops(tmp_path: Path) -> None:
    done = count(tmp_path, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert (done.returncode, "alive" in done.stdout) == (0, True), done.stderr
    assert list(tmp_path.glob("*.db*")) == []


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, as /dev/shm is, with room for the counters' first 64 KiB and a little more."""
    folder = tmp_path / "shm"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this user may not mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_tmpfs_kills_no_process(full_disk: Path) -> None:
    assert_went_on(count(full_disk), full_disk)
