"""The unprivileged user that PostgreSQL runs as when root starts it: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .refusal import Refusal

CANDIDATES: Final = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int

    def popen_arguments(self) -> dict[str, Any]:
        """Return the arguments of `subprocess.Popen` that make a program run as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_enter(self, folder: Path) -> bool:
        """Tell whether this user reaches `folder`; asked of the system, which also knows access lists and mounts."""
        return self._succeeds("/bin/sh", "-c", 'cd "$1"', "sh", str(folder))

    def can_run(self, program: Path) -> bool:
        """Tell whether this user can start `program` with all its libraries."""
        return self._succeeds(str(program), "--version")

    def _succeeds(self, *command: str) -> bool:
        try:
            return subprocess.run(command, capture_output=True, cwd="/", check=False, **self.popen_arguments()).returncode == 0
        except OSError:  # no such program, or this root may not become that user
            return False

    def own(self, path: Path) -> None:
        """Give `path` to this user."""
        os.chown(path, self.uid, self.gid)


def unprivileged_account() -> Account | None:
    """Return the user that PostgreSQL runs as; None when this process is not root and needs none.

    Raises:
        Refusal: no such user exists, or this root may not become another user.
    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(name, entry.pw_uid, entry.pw_gid)
        if account.can_enter(Path("/")):
            return account
    raise Refusal(
        "PostgreSQL refuses to run as root, and there is no user 'postgres' or 'nobody' to run it as. "
        "Run make as another user, or add one: useradd --system postgres"
    )
