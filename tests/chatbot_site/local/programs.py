"""The supervisor as a program that tests start, watch and kill."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from dotenv import dotenv_values

from chatbot_site.local.processes import Mark
from chatbot_site.local.testing import clean_environment
from chatbot_site.settings.environment import PROJECT_DIR
from tests.waiting import eventually

SERVICES = [sys.executable, str(Path(__file__).parent / "stores_alone.py")]
RUN = [sys.executable, "-m", "chatbot_site.local", "run"]


class Started:
    """A program under test, with its output collected line by line."""

    def __init__(self, command, *, data_dir, **env):
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            command,
            cwd=PROJECT_DIR,
            env=clean_environment() | {"DATA_DIR": str(data_dir), "ENV_FILE": os.devnull, "PYTHONPATH": str(PROJECT_DIR)} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def output(self):
        return "".join(self.lines)

    def wait_for_line(self, text, *, timeout_s=180.0):
        def found():
            assert text in self.output or self.process.poll() is None, self.output
            return text in self.output

        eventually(found, what=f"{text!r} in the output", timeout_s=timeout_s)

    def environment(self):
        return dotenv_values(self.data_dir / "environment")

    def mark(self, name):
        return Mark(**json.loads((self.data_dir / "processes" / f"{name}.json").read_text()))

    def marks(self):
        return [Mark(**json.loads(file.read_text())) for file in (self.data_dir / "processes").glob("*.json")]

    def watchdog(self):
        """The process id of the supervisor's watchdog: its only child that is not marked."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next(int(pid) for pid in children if "watchdog" in Path(f"/proc/{pid}/cmdline").read_text())

    def end(self, number=signal.SIGTERM, *, timeout_s=60):
        """Send a signal to the supervisor alone; return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        self.reader.join(10)
        return code
