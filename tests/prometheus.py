"""The real Prometheus, as Debian packages it, for tests of metrics and of alert rules."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from chatbot_site.local.debian import find_program
from tests.live_server import METRICS_TOKEN, PROJECT_DIR
from tests.ports import free_port
from tests.waiting import eventually

Series = tuple[dict[str, str], float]

DOCUMENTED: Final[dict[str, tuple[str, set[str]]]] = {
    name: (kind, {label.strip("` ") for label in labels.split(",")} - {""})
    for name, kind, labels in re.findall(
        r"^\| `((?:chatbot|django)_\w+)` \| (\w+) \|[^|]*\|([^|]*)\|", (PROJECT_DIR / "docs/metrics.md").read_text(), re.MULTILINE
    )
}
"""Every metric of docs/metrics.md: its type and its labels."""


def _program(name: str) -> str:
    path = find_program(name)
    if not path:
        message = f"there is no {name} here (Debian: apt-get install prometheus)"
        assert os.environ.get("CI") != "true", message
        pytest.skip(message)
    return path


@pytest.fixture
def promtool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run promtool: `promtool("check", "metrics", given=text)`."""
    path = _program("promtool")

    def promtool(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([path, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False)

    return promtool


class Prometheus:
    """A Prometheus of this test's own, with its API."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        (folder / "prometheus.yml").write_text(json.dumps(config))  # YAML reads JSON
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    _program("prometheus"),
                    *(f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
                    *(f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn", "--query.lookback-delta=10s"),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self._process.poll() is None, f"Prometheus ended:\n{self._log.read_text()[-4000:]}"
            try:
                return httpx2.get(f"{self.url}/-/ready", timeout=10, trust_env=False).status_code == 200
            except httpx2.TransportError:
                return False

        eventually(is_ready, what="Prometheus is ready", timeout_s=60)

    def query(self, query: str) -> list[Series]:
        """Return what `query` gives now: each series' labels and value."""
        return [(found["metric"], float(found["value"][1])) for found in self._ask("query", query=query)["result"]]

    def value(self, query: str) -> float | None:
        """Return the one value that `query` gives now; None: nothing."""
        found = self.query(query)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def samples(self, selector: str) -> list[tuple[dict[str, str], list[float]]]:
        """Return all values that were scraped for `selector`, such as `name{label="value"}[1m]`, of each series."""
        found = self._ask("query", query=selector)["result"]
        return [(series["metric"], [float(value) for _, value in series["values"]]) for series in found]

    def scrapes(self) -> float:
        """Return how many scrapes there were, of all targets, that went well."""
        return self.value("sum(sum_over_time(up[10m]))") or 0

    def is_firing(self, alert: str, **labels: str) -> bool:
        """Tell whether an alert fires now, with these of its labels."""
        wanted = {"alertname": alert, **labels}.items()
        return any(it["state"] == "firing" and wanted <= it["labels"].items() for it in self._ask("alerts")["alerts"])

    def _ask(self, what: str, **parameters: str) -> dict[str, Any]:
        answer = httpx2.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=30, trust_env=False).json()
        assert answer["status"] == "success", answer
        data: dict[str, Any] = answer["data"]
        return data

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    """Start one: `start_prometheus([server.port], rules=[path])`; it scrapes every second."""
    with ExitStack() as stack:

        def start_prometheus(ports: Sequence[int], *, rules: Sequence[Path] = ()) -> Prometheus:
            (tmp_path / "token").write_text(METRICS_TOKEN)
            targets = [f"127.0.0.1:{port}" for port in ports]
            job = {
                "job_name": "chatbot-web",
                "authorization": {"credentials_file": str(tmp_path / "token")},
                "static_configs": [{"targets": targets}],
            }
            often = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
            prometheus = Prometheus(tmp_path, {"global": often, "scrape_configs": [job], "rule_files": [str(path) for path in rules]})
            stack.callback(prometheus.stop)
            prometheus.wait_until_ready()
            return prometheus

        yield start_prometheus
