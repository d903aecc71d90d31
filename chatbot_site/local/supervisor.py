"""Starts programs one after the other, watches them, starts again what fails, and stops all of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from .folder import DataFolder, write_private
from .processes import Interrupts, Mark, Program, stop_leftovers
from .refusal import Refusal

READY_S: Final = 60.0
RESTARTS: Final = 5
RESTARTS_WITHIN_S: Final = 60.0


def say(text: str) -> None:
    """Print a line of progress at once, also into a pipe."""
    print(text, flush=True)


class Supervisor:
    """Runs programs for one data folder. Use as a context manager: leaving it stops them all."""

    def __init__(self, folder: DataFolder, *, interrupts: Interrupts, project: Path) -> None:
        self.folder = folder
        self.interrupts = interrupts
        self.programs: list[Program] = []
        self._deaths: list[float] = []
        for name in stop_leftovers(folder.marks):
            say(f"Stopped {name}, which an earlier run had left behind.")
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "chatbot_site.local.watchdog"],
            stdin=subprocess.PIPE,
            cwd=project,
            start_new_session=True,
            pass_fds=(folder.lock,),
        )

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, program: Program, *, wait: bool = True) -> None:
        """Start `program` and wait until it is ready.

        Raises:
            Refusal: it ended instead, or was not ready in time.
            StopRequested: a signal came meanwhile.
        """
        self.programs.append(program)
        self._launch(program)
        if wait:
            self.wait_until_ready(program)

    def wait_until_ready(self, program: Program) -> None:
        """Wait for a program that `start` was told not to wait for. Raises as `start` does."""
        ready = self.interrupts.wait_for(lambda: not program.is_running() or program.ready(), timeout_s=READY_S)
        if not program.is_running():
            raise Refusal(f"{program.title} did not start: {program.last_words() or 'see above'}. {_log_of(program)}")
        if not ready:
            raise Refusal(f"{program.title} is not ready after {READY_S:.0f} seconds: {program.last_words()}. {_log_of(program)}")

    def watch(self) -> None:
        """Keep everything running until a signal comes.

        Raises:
            StopRequested: a signal came.
            Refusal: a program fails again and again.
        """
        while True:
            self.interrupts.pause(0.2)
            for program in self.programs:
                if not program.is_running():
                    self._restart(program)

    def _restart(self, program: Program) -> None:
        assert program.process is not None
        code = program.process.returncode
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < RESTARTS_WITHIN_S] + [now]
        if len(self._deaths) > RESTARTS:
            raise Refusal(f"{program.title} stops again and again: {program.last_words() or 'see above'}. {_log_of(program)}")
        say(f"{program.title} stopped unexpectedly ({f'signal {-code}' if code < 0 else f'exit code {code}'}); starting it again.")
        self.interrupts.pause(0.3 * (len(self._deaths) - 1))
        self._forget(program)
        self._launch(program)
        self.interrupts.wait_for(lambda: not program.is_running() or program.ready(), timeout_s=READY_S)
        if program.is_running():
            say(f"{program.title} is back.")

    def _launch(self, program: Program) -> None:
        mark = program.start()
        self._tell_watchdog({"add": asdict(mark)})
        write_private(self.folder.marks / f"{mark.name}.json", json.dumps(asdict(mark)))

    def _forget(self, program: Program) -> None:
        if program.mark is not None:
            self._tell_watchdog({"remove": program.mark.pid})
            self._file(program.mark).unlink(missing_ok=True)

    def _file(self, mark: Mark) -> Path:
        return self.folder.marks / f"{mark.name}.json"

    def _tell_watchdog(self, message: dict[str, Any]) -> None:
        assert self._watchdog.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody killed it: a later run still finds the marks
            self._watchdog.stdin.write(json.dumps(message).encode() + b"\n")
            self._watchdog.stdin.flush()

    def stop(self) -> None:
        """Stop everything, the last started first; a second signal makes it quick."""
        before = self.interrupts.count
        for program in reversed(self.programs):
            program.stop(hurry=lambda: self.interrupts.count > before)
            self._forget(program)
        self.programs.clear()
        assert self._watchdog.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._watchdog.stdin.close()
        self._watchdog.wait()


def _log_of(program: Program) -> str:
    return f"Its log is {program.log}." if program.log else ""
