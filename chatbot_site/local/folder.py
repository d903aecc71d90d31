"""The data folder: databases, secrets and logs of `make run`, used by one supervisor at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .processes import Interrupts, identity
from .refusal import Refusal, explain_file_error

NEEDED_MB: Final = 300
"""Free space that a first run asks for: a new database with its log, and tokenizer ranks."""
NEEDED_AGAIN_MB: Final = 60
STOPPING_S: Final = 40.0


class DataFolder:
    """DATA_DIR. Every file in it is readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.marks = path / "processes"
        self.logs = path / "logs"
        self.environment_file = path / "environment"
        self._lock: int | None = None

    def open(self, interrupts: Interrupts) -> None:
        """Make the folder, prove that it can be written, and lock it.

        Raises:
            Refusal: it cannot be used, is full, or another supervisor uses it.
        """
        try:
            is_new = not (self.path / "secret_key").exists()
            self.path.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:
                self.path.chmod(0o711)  # PostgreSQL's user passes through to its own folder
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(bytes(64 * 1024))
            self._take_lock(interrupts)
            for folder in (self.marks, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
            free_mb = shutil.disk_usage(self.path).free // 1_000_000
        except OSError as error:
            raise explain_file_error(error, folder=self.path) from None
        needed_mb = NEEDED_MB if is_new else NEEDED_AGAIN_MB
        if free_mb < needed_mb:
            raise Refusal(
                f"The disk of the data folder {self.path} is full: {free_mb} MB are free, about {needed_mb} MB are needed. "
                "Free some space, or choose another folder with DATA_DIR=…"
            )

    def _take_lock(self, interrupts: Interrupts) -> None:
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not self._try_lock():
            holder = os.pread(self._lock, 200, 0).decode(errors="replace").split("\n")
            # A dead holder left its watchdog, which holds the lock until it has stopped everything.
            if holder[0].isdigit() and identity(int(holder[0])) == holder[1]:
                raise Refusal(
                    f"Another `make run` (process {holder[0]}) uses the data folder {self.path}. "
                    "Stop it, or choose another folder and port: make run DATA_DIR=… PORT=8001"
                )
            print("The previous run is still being stopped; waiting for it.", flush=True)
            if not interrupts.wait_for(self._try_lock, timeout_s=STOPPING_S):
                raise Refusal(
                    f"The previous run still uses the data folder {self.path}. Stop its processes, or choose another with DATA_DIR=…"
                )
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n{identity(os.getpid())}\n".encode(), 0)

    def _try_lock(self) -> bool:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def lock(self) -> int:
        """The lock's file descriptor, for the watchdog to inherit."""
        assert self._lock is not None
        return self._lock

    def secret_key(self) -> str:
        """Return this installation's SECRET_KEY, made at the first call."""
        return kept_secret(self.path / "secret_key")

    def write_environment(self, values: Mapping[str, str]) -> None:
        """Write what `manage.py` needs to work beside a running server."""
        lines = ["# Written by `make run` at each start, for manage.py commands in another terminal. Your own settings belong into .env"]
        lines += [f"{name}='{_escaped(value)}'" for name, value in values.items()]
        write_private(self.environment_file, "\n".join(lines) + "\n")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def kept_secret(file: Path) -> str:
    """Return the secret in `file`, which is made first where it is absent."""
    if file.exists() and (secret := file.read_text().strip()):
        return secret
    secret = secrets.token_urlsafe(48)
    write_private(file, secret + "\n")
    return secret


def write_private(file: Path, text: str) -> None:
    """Replace `file` in one step by one that only its owner can read."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)
