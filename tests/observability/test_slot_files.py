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
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from observability.slot_files import SlotFile

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
# One that a file of the first size has no room for, before one that it has room for.
_COUNTING_A_LONG_NAME = f"""
from observability import metrics
for name in ("first", "x" * {_FIRST_BYTES}, "late", "first"):
    metrics.messages.of(name, "done").inc()
print("alive", flush=True)
"""
# What macOS does not have.
_WITHOUT_FALLOCATE = """
import os
del os.posix_fallocate
"""


@pytest.fixture(params=["", _WITHOUT_FALLOCATE], ids=["fallocate", "zeros"])
def system(request: pytest.FixtureRequest) -> str:
    """What makes a process one of each kind of system."""
    prelude: str = request.param
    return prelude


def count(folder: Path, code: str = _COUNTING, *, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    return subprocess.run([sys.executable, "-c", code], env=environment, preexec_fn=before, capture_output=True, text=True, check=False)


def allow(file_bytes: int) -> Callable[[], None]:
    """Let no file of a process become longer."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))


def has_holes(file: Path) -> bool:
    seen = file.stat()
    return seen.st_blocks * 512 < seen.st_size


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


def test_with_space_all_is_told(tmp_path: Path, system: str) -> None:
    done = count(tmp_path, system + _COUNTING)
    assert (done.returncode, "no space" in done.stdout + done.stderr) == (0, False)
    assert value(tmp_path, "first") == value(tmp_path, "bot-1499") == 2
    for file in tmp_path.glob("*.db"):
        assert file.stat().st_size >= _FIRST_BYTES
        assert not has_holes(file), file.name


def test_a_file_that_may_not_grow_stops_no_process(tmp_path: Path, system: str) -> None:
    assert_went_on(count(tmp_path, system + _COUNTING, before=allow(_FIRST_BYTES)), tmp_path)


def test_a_file_that_could_not_grow_takes_nothing_new_that_would_fit(tmp_path: Path) -> None:
    assert_went_on(count(tmp_path, _COUNTING_A_LONG_NAME, before=allow(_FIRST_BYTES)), tmp_path)
    assert value(tmp_path, "late") is None


def test_without_any_space_nothing_is_told_and_nothing_stops(tmp_path: Path, system: str) -> None:
    done = count(tmp_path, system + _COUNTING, before=allow(4096))
    assert (done.returncode, "alive" in done.stdout) == (0, True), done.stderr
    assert list(tmp_path.glob("*.db*")) == []


def test_a_file_that_another_left_with_holes_has_none_once_it_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "counter_1.db"
    left = MmapedDict(str(path))  # type: ignore[no-untyped-call] # prometheus_client's own
    left.write_value("a key", 7.0, 0.0)  # type: ignore[no-untyped-call] # as above
    left.close()  # type: ignore[no-untyped-call] # as above
    assert has_holes(path)
    continued = SlotFile(str(path))
    assert continued.read_value("a key") == (7.0, 0.0)
    continued.close()  # type: ignore[no-untyped-call] # as above
    assert not has_holes(path)


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


def test_a_full_tmpfs_kills_no_process(full_disk: Path, system: str) -> None:
    assert_went_on(count(full_disk, system + _COUNTING), full_disk)
