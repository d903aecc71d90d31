"""Programs that tests drive and a package of Debian brings: found, or installed where that can be done."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from .refusal import Refusal
from .supervisor import say

# Servers stand where a person's own PATH may not lead.
_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"


def find_program(name: str) -> str:
    """Return the path of a program; "" where there is none."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_PATH}") or ""


def ensure_program(name: str, *, package: str, tests: str) -> str:
    """Return the path of a program, installed from its Debian package where it is missing; "" where there is none, after saying so.

    Args:
        tests: what is tested with it, for people.

    Raises:
        Refusal: there is none under CI=true, where no test may be skipped.
    """
    if path := find_program(name):
        return path
    if can_install():
        say(f"Installing {package} with apt-get for the tests of {tests}")
        install(package)
    if path := find_program(name):
        return path
    remedy = f"Install it (Debian: apt-get install {package})."
    if os.environ.get("CI") == "true":
        raise Refusal(f"There is no {name}, and under CI=true the tests of {tests} may not be skipped. {remedy}")
    say(f"No {name} was found: the tests of {tests} will be skipped. {remedy}")
    return ""


def can_install() -> bool:
    """Tell whether this is Debian, and this user may install packages."""
    return os.geteuid() == 0 and bool(shutil.which("apt-get")) and "ID=debian" in os_release()


def install(package: str) -> bool:
    """Install a package, and tell whether that went well; say what apt-get said where it did not."""
    # Where systemd runs, a package with a server would start it; tests start their own. (Without an init system none is started.)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "SYSTEMD_OFFLINE": "1"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "--no-install-recommends", package]):
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            say("".join(done.stdout.splitlines(keepends=True)[-5:]) + f"'{' '.join(command)}' failed (above is why).")
            return False
    return True


def os_release() -> list[str]:
    """Return the lines of the file that names this system."""
    try:
        return Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return []
