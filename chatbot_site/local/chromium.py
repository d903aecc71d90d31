"""Finds the Chromium that drives the browser tests, and installs it where that can be done."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from . import debian
from .refusal import Refusal
from .supervisor import say

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MACOS: Final = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


def ensure_chromium() -> str:
    """Return the path of a Chromium; "" where there is none, after saying so.

    Raises:
        Refusal: CHROMIUM names no program, or there is none under CI=true, where no test may be skipped.
    """
    if named := os.environ.get("CHROMIUM"):
        if shutil.which(named):
            return named
        raise Refusal(f"CHROMIUM names {named}, which is not a program. Correct it, or leave it out.")
    if path := _find() or _install():
        return path
    if os.environ.get("CI") == "true":
        raise Refusal(
            "There is no Chromium, and under CI=true browser tests may not be skipped. Install one (Debian: apt-get install chromium)."
        )
    say("No Chromium was found: the browser tests will be skipped. Install one, or name one with CHROMIUM=…")
    return ""


def _find() -> str:
    return next(filter(None, map(shutil.which, NAMES)), None) or (str(MACOS) if MACOS.exists() else "")


def _install() -> str:
    # Ubuntu's package only points to a snap, which does not run in containers.
    if not debian.can_install():
        return ""
    say("Installing Chromium with apt-get for the browser tests (about 300 MB, a minute or two)")
    return _find() if debian.install("chromium") else ""
