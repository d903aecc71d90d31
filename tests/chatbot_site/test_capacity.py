"""Web workers fit the container they run in, whichever version of control groups tells of its limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot_site import capacity

GB = 1_000_000_000


@pytest.fixture(autouse=True)
def big_machine(monkeypatch):
    """32 cores, 64 GB."""
    monkeypatch.setattr(capacity.os, "sched_getaffinity", lambda pid: set(range(32)), raising=False)
    monkeypatch.setattr(capacity.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GB // 4096}.__getitem__)


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("DOT", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


def in_version_2(root: Path, *, path: str = "/", **limits: str) -> Path:
    write(root, proc__self__cgroup=f"0::{path}")
    return write(root / "sys/fs/cgroup" / path.lstrip("/"), **limits)


def test_a_machine_without_limits_gets_the_most(tmp_path):
    assert capacity.web_workers(tmp_path) == capacity.MOST_WORKERS
    assert capacity.usable_cores(tmp_path) == 32


@pytest.mark.parametrize(
    ("limits", "workers"),
    [
        ({"cpuDOTmax": "200000 100000", "memoryDOTmax": str(8 * GB)}, 2),
        ({"cpuDOTmax": "150000 100000", "memoryDOTmax": str(8 * GB)}, 2),  # a share is rounded up
        ({"cpuDOTmax": "50000 100000", "memoryDOTmax": "max"}, 1),
        ({"cpuDOTmax": "max 100000", "memoryDOTmax": str(512 * 1024**2)}, 2),  # memory decides
        ({"cpuDOTmax": "max 100000", "memoryDOTmax": "64000000"}, 1),  # never none
        ({"cpuDOTmax": "max 100000", "memoryDOTmax": "max"}, capacity.MOST_WORKERS),
    ],
)
def test_limits_of_version_2(tmp_path, limits, workers):
    in_version_2(tmp_path, **limits)
    assert capacity.web_workers(tmp_path) == workers


def test_a_group_above_may_limit(tmp_path):
    in_version_2(tmp_path, path="/system.slice/chatbot-web.service", cpuDOTmax="max 100000", memoryDOTmax="max")
    write(tmp_path / "sys/fs/cgroup/system.slice", cpuDOTmax="300000 100000", memoryDOTmax=str(GB))
    assert (capacity.usable_cores(tmp_path), capacity.usable_bytes(tmp_path)) == (3, GB)


def test_limits_of_version_1(tmp_path):
    write(tmp_path, proc__self__cgroup="4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc")
    # The host's path is not there inside the container: the top of each tree is the container's own.
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct", cpuDOTcfs_quota_us="400000", cpuDOTcfs_period_us="100000")
    write(tmp_path / "sys/fs/cgroup/memory", memoryDOTlimit_in_bytes=str(GB))
    assert (capacity.usable_cores(tmp_path), capacity.usable_bytes(tmp_path)) == (4, GB)
    assert capacity.web_workers(tmp_path) == 4


def test_no_limit_of_version_1_is_no_limit(tmp_path):
    write(tmp_path, proc__self__cgroup="4:memory:/\n3:cpu:/")
    write(tmp_path / "sys/fs/cgroup/cpu", cpuDOTcfs_quota_us="-1", cpuDOTcfs_period_us="100000")
    write(tmp_path / "sys/fs/cgroup/memory", memoryDOTlimit_in_bytes="9223372036854771712")
    assert capacity.usable_cores(tmp_path) == 32
    assert capacity.usable_bytes(tmp_path) == 64 * GB // 4096 * 4096


def test_cores_that_a_process_is_pinned_to(tmp_path, monkeypatch):
    monkeypatch.setattr(capacity.os, "sched_getaffinity", lambda pid: {0, 5, 9}, raising=False)
    assert capacity.web_workers(tmp_path) == 3
