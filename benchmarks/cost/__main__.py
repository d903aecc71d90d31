"""The command line of `python -m benchmarks.cost`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.chat.stores import stores
from chatbot_site.local.refusal import Refusal

from .parts import PARTS, Extent, run
from .report import as_text, complaints

FULL: Final = Extent(rounds=12, seconds=2.0, report_rounds=30)
QUICK: Final = Extent(rounds=1, seconds=1.0, report_rounds=5)
ROWS: Final = 10_000_000


def main() -> int:
    options = _options()
    machine = f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
    try:
        with stores() as (database_url, redis_url):
            found: dict[str, Any] = {"machine": machine} | run(
                options.only or PARTS,
                rows=options.rows,
                extent=QUICK if options.quick else FULL,
                database_url=database_url,
                redis_url=redis_url,
            )
    except Refusal as refusal:
        sys.exit(str(refusal))
    found["complaints"] = complaints(found)
    print(as_text(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if found["complaints"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost", description="Measure cost and protection; docs/benchmarks.md explains."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"how many rows the ledger has for the reports, {ROWS:,} if absent")
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be given several times")
    options = parser.parse_args()
    if options.rows < 10_000:
        parser.error("--rows must be 10,000 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
