"""Who runs on which core: the server (or a peer) on one, everything else on another, where the system can do that."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil


def available() -> tuple[int, int] | None:
    """Return (the server's core, everybody else's); None where there is only one, or processes cannot be pinned."""
    if sys.platform != "linux":
        return None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None


@contextmanager
def pinned(process: psutil.Process, core: int | None) -> Iterator[None]:
    """Keep `process` and its children on `core` for the length of the block; children started meanwhile inherit it.

    Raises:
        psutil.AccessDenied: the process belongs to somebody else.
    """
    if core is None:
        yield
        return
    before = {member: member.cpu_affinity() for member in family(process)}
    for member in before:
        member.cpu_affinity([core])
    try:
        yield
    finally:
        for member in family(process):
            try:
                member.cpu_affinity(before.get(member) or before[process])
            except psutil.NoSuchProcess:
                continue


@contextmanager
def pinned_where_possible(processes: list[psutil.Process], core: int | None) -> Iterator[list[str]]:
    """Pin each of `processes` and yield the names of those that could not be."""
    refused = []
    with ExitStack() as stack:
        for process in processes:
            try:
                stack.enter_context(pinned(process, core))
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                refused.append(f"process {process.pid}")
        yield refused


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return `process` and all its descendants."""
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    """Return the processor seconds that `process` and its living children have used."""
    return float(sum(times.user + times.system for times in (member.cpu_times() for member in family(process))))


def memory_bytes(process: psutil.Process) -> tuple[int, int]:
    """Return (USS, RSS) of `process` and its children: what they hold alone, and what they see."""
    full = [member.memory_full_info() for member in family(process)]
    return sum(info.uss for info in full), sum(info.rss for info in full)


def listener(host: str, port: int) -> psutil.Process | None:
    """Return the process of this machine that listens on `port`; None if there is none, or it cannot be told."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        return None
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
            return psutil.Process(connection.pid)
    return None
