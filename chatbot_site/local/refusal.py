"""What `make run` says instead of a traceback."""

from __future__ import annotations

import errno
from pathlib import Path


class Refusal(Exception):
    """One sentence that says what is wrong, and the remedy."""


def explain_file_error(error: OSError, *, folder: Path) -> Refusal:
    """Return the sentence for a file operation in the data folder that failed."""
    another = "or choose another folder with DATA_DIR=…"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal(f"The disk of the data folder {folder} is full. Free some space, {another}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Refusal(f"The data folder {folder} cannot be written by this user. Give it write permission, {another}")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return Refusal(f"The data folder {folder} cannot be made because a file has that name. Move the file away, {another}")
    return Refusal(f"The data folder {folder} cannot be used ({error.strerror or error}). Repair it, {another}")
