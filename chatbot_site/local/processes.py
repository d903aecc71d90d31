"""Programs that the supervisor starts: how each is started, recognised later, and stopped."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .accounts import Account

PATIENCE_S: Final = 10.0
PROC: Final = Path("/proc")


class StopRequested(BaseException):
    """The person pressed Ctrl-C, closed the terminal, or the system asked this process to stop."""


class Interrupts:
    """Turns signals into `StopRequested`, raised only inside `pause`, where nothing is half done."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.count += 1

    def pause(self, seconds: float = 0.05) -> None:
        """Sleep. Raises: StopRequested when a signal has come."""
        if self.count:
            raise StopRequested
        time.sleep(seconds)
        if self.count:
            raise StopRequested

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        """Poll `condition` until it holds; tell whether it did within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.pause()
        return True

    def run(
        self,
        command: Sequence[str | Path],
        *,
        account: Account | None = None,
        cwd: Path,
        env: Mapping[str, str],
        given: str = "",
        timeout_s: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` to its end with its output captured; a stop request ends it early."""
        identity_arguments = account.popen_arguments() if account else {}
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            text=True,
            start_new_session=True,
            **identity_arguments,
        ) as process:
            deadline = time.monotonic() + timeout_s
            text: str | None = given
            while True:
                try:
                    output, _ = process.communicate(text, timeout=0.05)
                except subprocess.TimeoutExpired:
                    text = None
                    if self.count or time.monotonic() > deadline:
                        process.terminate()
                        process.communicate()
                        self.pause(0)
                        raise
                else:
                    return subprocess.CompletedProcess(command, process.returncode, output)


@functools.cache
def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def identity(pid: int) -> str | None:
    """Return what tells process `pid` from a later one with the same number; None when it is gone (or a zombie)."""
    if PROC.exists():
        try:
            fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else f"{_boot_id()}:{fields[19].decode()}"
    # macOS has no /proc, and always has ps.
    state = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return None if not state or state[0].startswith("Z") else " ".join(state[1:])


@dataclass(frozen=True)
class Mark:
    """A process as it is written down, for a watchdog or a later run to stop it."""

    name: str
    pid: int
    identity: str
    stop_signal: int

    def is_alive(self) -> bool:
        return identity(self.pid) == self.identity

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, number)

    def stop(self, *, patience_s: float = PATIENCE_S, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask it to stop, and kill it when it has not within `patience_s` (or at once when `hurry` says so)."""
        self.signal(self.stop_signal)
        deadline = time.monotonic() + patience_s
        while self.is_alive():
            if time.monotonic() > deadline or hurry():
                self.signal(signal.SIGQUIT if self.name == "postgresql" else signal.SIGKILL)
                time.sleep(0.2)
                self.signal(signal.SIGKILL)
                return
            time.sleep(0.02)


def stop_all(marks: Sequence[Mark]) -> None:
    """Stop `marks`, the last first, so that the web server goes before its databases."""
    for mark in reversed(marks):
        mark.stop()


def stop_leftovers(folder: Path) -> list[str]:
    """Stop what an earlier supervisor, killed together with its watchdog, left running; return the names."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            mark = Mark(**json.loads(file.read_text()))
        except (ValueError, TypeError):
            file.unlink()
            continue
        if mark.is_alive():
            found.append(mark)
    stop_all(sorted(found, key=lambda mark: mark.name != "postgresql"))
    for file in folder.glob("*.json"):
        file.unlink()
    return [mark.name for mark in found]


@dataclass
class Program:
    """A program that runs beside the supervisor.

    Attributes:
        log: The file that takes its output; None: it writes to the terminal.
        ready: Tells whether it does its work yet.
    """

    name: str
    title: str
    command: Sequence[str | Path]
    cwd: Path
    env: Mapping[str, str]
    ready: Callable[[], bool]
    log: Path | None = None
    account: Account | None = None
    stop_signal: int = signal.SIGTERM
    patience_s: float = PATIENCE_S
    before: Callable[[], None] = lambda: None
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    mark: Mark | None = field(default=None, init=False)

    def start(self) -> Mark:
        """Start it, in a session of its own so that the terminal's Ctrl-C reaches the supervisor only."""
        self.before()
        identity_arguments = self.account.popen_arguments() if self.account else {}
        with contextlib.ExitStack() as files:
            output = files.enter_context(_fresh(self.log)) if self.log else None
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                cwd=self.cwd,
                env=dict(self.env),
                start_new_session=True,
                **identity_arguments,
            )
        self.mark = Mark(self.name, self.process.pid, identity(self.process.pid) or "", int(self.stop_signal))
        return self.mark

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def last_words(self) -> str:
        """Return the last line of its log that tells of trouble."""
        if self.log is None or not self.log.exists():
            return ""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        bad = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "ERROR", "Error", "rror:", "# "))]
        return (bad or lines or [""])[-1][:300]

    def stop(self, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop it and everything in its session."""
        if self.process is None or self.mark is None:
            return
        if self.process.poll() is None:
            self.mark.stop(patience_s=self.patience_s, hurry=hurry)
        self.process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


def model_server(module: str, port: int, *, name: str, title: str, project: Path, log: Path) -> Program:
    """Return a server of one of the built-in models, to be started: a `module` that takes its port and answers at /health."""
    return Program(
        name=name,
        title=title,
        command=[sys.executable, "-m", module, str(port)],
        cwd=project,
        env=dict(os.environ),
        ready=lambda: _is_healthy(port),
        log=log,
        patience_s=2,
    )


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _fresh(log: Path) -> contextlib.AbstractContextManager[int]:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".old.log"))
    return _closing(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600))


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
