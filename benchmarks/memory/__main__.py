"""The command line of `python -m benchmarks.memory`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from chatbot_site.local.refusal import Refusal

from .awake import cores_awake
from .conversations import Unreadable, read
from .figures import NAMES
from .storage import scratch
from .storm.embedder import DIMENSIONS, MODEL, embedders


def main() -> int:
    options = _options()
    try:
        if options.storm:
            figures, text = _of_storm(options.operations, seed=options.seed)
        else:
            figures, text = _at_scale(options.rows, awake=options.awake) if options.scale else _of_file(options.file)
    except (Refusal, Unreadable, RuntimeError) as refusal:
        sys.exit(f"Error: {refusal}")
    print(text)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _of_file(path: Path) -> tuple[dict[str, Any], str]:
    conversations = read(path)
    with scratch():
        from .measuring import measure  # the server's own code, which needs Django set up

        figures = _run(measure(conversations))
    return figures, as_text(figures)


def _at_scale(rows: int, *, awake: bool) -> tuple[dict[str, Any], str]:
    with scratch(), cores_awake() if awake else contextlib.nullcontext():
        from . import scale  # likewise

        figures = _run(scale.measure_scale(rows))
        return figures, scale.as_text(figures)


def _of_storm(operations: int, *, seed: int) -> tuple[dict[str, Any], str]:
    print(f"seed {seed}", flush=True)  # first: it replays a failure
    with embedders() as (embedder, stalling):
        hosts = ",".join(each.url.split("/")[2] for each in (embedder, stalling))
        named = {"EMBEDDING_BASE_URL": embedder.url, "EMBEDDING_MODEL": MODEL, "EMBEDDING_DIMENSIONS": str(DIMENSIONS)}
        with scratch(embedder={**named, "OUTBOUND_ALLOWED_HOSTS": hosts}):
            from .storm.running import run_storm  # likewise

            figures = asyncio.run(run_storm(operations=operations, seed=seed, stalling=stalling))
    return figures, json.dumps(figures, indent=2)


def _run(measuring: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Run it to its end, and close the connections that the server's code keeps open."""
    from observability.outbound import close_transports  # likewise

    async def run() -> dict[str, Any]:
        try:
            return await measuring
        finally:
            await close_transports()

    return asyncio.run(run())


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
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--file", type=Path, metavar="PATH", help="how much is recalled: conversations and questions, in LoCoMo's shape")
    what.add_argument("--scale", action="store_true", help="how long recall takes, and how much is stored a second, as memory grows")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="with --scale: how many vectors there are in the end")
    parser.add_argument("--awake", action="store_true", help="with --scale: on cores that do not fall asleep, as when there is more to do")
    what.add_argument("--storm", action="store_true", help="nobody's memory goes astray: many people, killed workers, erasures")
    parser.add_argument("--operations", type=int, default=100_000, metavar="N", help="with --storm: how many (100,000)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), metavar="N", help="with --storm: their order")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
