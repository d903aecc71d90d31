"""The command line of `python -m benchmarks.memory`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from chatbot_site.local.refusal import Refusal

from .conversations import Unreadable, read
from .figures import NAMES
from .storage import scratch


def main() -> int:
    options = _options()
    try:
        conversations = read(options.file)
        with scratch():
            from .measuring import measure  # the server's own code, which needs Django set up

            figures = asyncio.run(measure(conversations))
    except (Refusal, Unreadable, RuntimeError) as refusal:
        sys.exit(f"Error: {refusal}")
    print(as_text(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def as_text(figures: dict[str, Any]) -> str:
    """Return the figures as a table: recall in per cent, one line for each way to recall."""
    rows = {
        f"this server, {figures['questions']} questions": figures,
        **{f"  category {name}, {part['questions']} questions": part for name, part in figures["per_category"].items()},
        "plain BM25": figures["baselines"]["bm25"],
        "plain vectors, one a message": figures["baselines"]["vectors"],
        "reciprocal rank fusion of the two": figures["baselines"]["rrf"],
    }
    lines = [" " * 36 + "".join(f"{name:>12}" for name in NAMES)]
    for title, row in rows.items():
        lines.append(f"{title:36}" + "".join(f"{row[name]:12.3f}" if name == "mrr" else f"{row[name]:12.1f}" for name in NAMES))
    lines.append(f"\nrecall, embedding included: {figures['recall_ms']} ms; writing: {figures['turns_per_s']} turns a second")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Measure recall; docs/benchmarks.md explains.")
    parser.add_argument("--file", type=Path, required=True, metavar="PATH", help="conversations and questions, in LoCoMo's shape")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
