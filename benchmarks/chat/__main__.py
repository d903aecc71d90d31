"""The command line of `python -m benchmarks.chat`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from chatbot_site.local.refusal import Refusal

from . import cores
from .processes import LoadProcess, ServerProcess, UpstreamProcess, affinity, server_environment
from .report import Footprint, Report
from .runner import Extent, Runner, Target
from .storage import AGENT, Storage, fresh_storage, redis_process
from .stores import stores

FULL = Extent(rounds=3, seconds=1.5)
QUICK = Extent(rounds=1, seconds=0.6)


def main() -> int:
    options = _options()
    try:
        with stores() as (database_url, redis_url):
            report = run(
                options.peer,
                extent=QUICK if options.quick else FULL,
                upstream_port=options.upstream_port,
                database_url=database_url,
                redis_url=redis_url,
            )
    except Refusal as refusal:
        sys.exit(str(refusal))
    print(report.as_text())
    if options.json:
        options.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    return 1 if report.complaints else 0


def run(peers: list[Target], *, extent: Extent, upstream_port: int, database_url: str, redis_url: str) -> Report:
    """Start every party, measure, stop them again, and return what was found."""
    split = cores.available()
    server_core, other_core = split or (None, None)
    with ExitStack() as stack:
        stack.enter_context(affinity(other_core))
        upstream = UpstreamProcess(upstream_port)
        stack.callback(upstream.stop)
        load = LoadProcess()
        stack.callback(load.stop)
        environment = server_environment(database_url=database_url, redis_url=redis_url)
        storage = stack.enter_context(fresh_storage(database_url, environment, upstream_url=upstream.base_url))
        store_processes = [found for found in (storage.process(), redis_process(redis_url)) if found]
        unpinned = stack.enter_context(cores.pinned_where_possible(store_processes, other_core))
        peer_processes = [peer.process for peer in peers if peer.process]
        unpinned += stack.enter_context(cores.pinned_where_possible(peer_processes, server_core))
        with affinity(server_core):
            server = ServerProcess(storage.environment)
        stack.callback(server.stop)
        ours = Target(name="this server", shape="chat", url=f"http://127.0.0.1:{server.port}/api/chat/{AGENT}", process=server.worker)
        direct = Target(name="upstream", shape="openai", url=f"{upstream.base_url}/chat/completions", model="bench")
        idle = [_idle(target) for target in (ours, *peers)]
        runner = Runner(upstream=upstream, load=load, direct=direct, targets=[ours, *peers], tell=_tell)
        figures = runner.measure(extent)
        footprints = [
            Footprint(
                target=target.name,
                start_s=server.start_s if target is ours else None,
                idle_uss_mb=uss_mb,
                idle_rss_mb=rss_mb,
                open_stream_kb=_in_kb(runner.open_streams(target)),
            )
            for target, (uss_mb, rss_mb) in zip((ours, *peers), idle, strict=True)
        ]
        return Report(
            machine=_machine(storage, split=split, unpinned=unpinned, extent=extent),
            figures=figures,
            footprints=footprints,
            acknowledged=runner.acknowledged[ours.name],
            stored=storage.turns(),
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat", description="Measure the chat API; docs/benchmarks.md explains.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="one short round of everything, about a minute")
    parser.add_argument(
        "--peer", type=_peer, action="append", default=[], metavar="NAME=BASE_URL,MODEL,KEY", help="drive this OpenAI-compatible API, too"
    )
    parser.add_argument(
        "--upstream-port", type=int, default=0, metavar="PORT", help="where the upstream listens, for peers to be pointed at"
    )
    return parser.parse_args()


def _peer(text: str) -> Target:
    name, _, rest = text.partition("=")
    base_url, model, key = [*rest.split(","), "", ""][:3]
    url = urlsplit(base_url)
    if not name or url.scheme != "http" or not url.hostname or not model:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=BASE_URL,MODEL,KEY with a BASE_URL such as http://127.0.0.1:4000/v1")
    return Target(
        name=name,
        shape="openai",
        url=f"{base_url.rstrip('/')}/chat/completions",
        model=model,
        key=key,
        process=cores.listener(url.hostname, url.port or 80),
    )


def _idle(target: Target) -> tuple[float | None, float | None]:
    if target.process is None:
        return None, None
    uss, rss = cores.memory_bytes(target.process)
    return uss / 1_000_000, rss / 1_000_000


def _in_kb(value: float | None) -> float | None:
    return None if value is None else value / 1000


def _machine(storage: Storage, *, split: tuple[int, int] | None, unpinned: list[str], extent: Extent) -> dict[str, str]:
    placed = f"server on core {split[0]}, everything else on core {split[1]}" if split else "not pinned: one core, or not Linux"
    return {
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}",
        "database": storage.about(),
        "cores": placed + (f"; could not be pinned: {', '.join(unpinned)}" if unpinned else ""),
        "extent": f"medians of {extent.rounds} rounds of {extent.seconds:g} s, targets in turns",
    }


def _tell(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
