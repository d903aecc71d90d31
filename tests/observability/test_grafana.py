"""The Grafana dashboard that is shipped: right in form, of documented metrics alone, and each of its queries finds data in a real
Prometheus. Grafana itself is not run here."""

import itertools
import json
import math
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import yaml

from observability.models import Budget, ModelPrice
from tests.factories import forget_vectors, unique
from tests.live_server import METRICS_TOKEN, PROJECT_DIR
from tests.prometheus import DOCUMENTED
from tests.sinks import http_sink
from tests.upstream import Refusal, Reply
from tests.waiting import eventually

FOLDER = PROJECT_DIR / "deploy" / "grafana"
DASHBOARD = json.loads((FOLDER / "dashboards" / "chatbot.json").read_text())
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
OTHERS = {"up": {"job", "instance"}, "process_resident_memory_bytes": {"job", "instance"}}
"""Metrics of Prometheus itself, and of any process."""
WHERE_THERE_IS_NONE = " or on() vector(0)"


def filled_in(expression):
    """Return what Grafana asks when all agents and models are chosen."""
    for name, value in (("agent", ".*"), ("model", ".*"), ("__rate_interval", "1m"), ("__range", "5m")):
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression
    return expression


def test_it_has_the_variables_that_its_queries_ask_for():
    assert {name: variable["type"] for name, variable in VARIABLES.items()} == {
        "datasource": "datasource",
        "agent": "query",
        "model": "query",
        "runbooks": "textbox",
    }
    for name in ("agent", "model"):
        variable = VARIABLES[name]
        assert variable["multi"], name
        assert variable["includeAll"], name
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
        assert label in DOCUMENTED[metric][1]
        assert any(f'{name}=~"${name}"' in expression for _, expression in QUERIES)


def test_panels_lie_side_by_side_each_in_a_row():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = set(itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells
    assert DASHBOARD["panels"][0]["type"] == "row"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_each_panel_says_what_it_shows_in_which_unit(panel):
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["type"] in ("stat", "bargauge") or panel["fieldConfig"]["defaults"]["custom"]["axisLabel"]
    assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} == {"${datasource}"}
    for link in panel["links"]:
        folder, _, name = link["url"].partition("/")
        assert folder == "${runbooks}"
        assert (PROJECT_DIR / "docs" / "runbooks" / name).exists()


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_each_query_names_documented_metrics_and_labels(title, expression):
    known = {**{name: labels for name, (_, labels) in DOCUMENTED.items()}, **OTHERS}
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\b(?:up|(?:chatbot|process)_\w+)\b", expression)}
    assert names, title
    assert names <= set(known)
    labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression))
    labels |= {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
    for name in names:
        assert labels <= known[name] | {"instance", "job"} | ({"le"} if DOCUMENTED.get(name, ("",))[0] == "histogram" else set()), title


def test_what_grafana_is_told_names_the_files_that_there_are():
    [source] = yaml.safe_load((FOLDER / "provisioning/datasources/chatbot.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "${PROMETHEUS_URL}")
    [provider] = yaml.safe_load((FOLDER / "provisioning/dashboards/chatbot.yml").read_text())["providers"]
    assert provider["type"] == "file"
    documented = (PROJECT_DIR / "docs/dashboards.md").read_text()
    assert provider["options"]["path"] in documented
    scraped = yaml.safe_load((PROJECT_DIR / "deploy/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped


@contextmanager
def worker(server_environment, **environment):
    """A worker that runs meanwhile."""
    started = subprocess.Popen(
        [sys.executable, "manage.py", "worker"],
        cwd=PROJECT_DIR,
        env={
            **os.environ,
            **server_environment,
            "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test",
            "METRICS_TOKEN": METRICS_TOKEN,
            "OUTBOUND_ALLOWED_HOSTS": "127.0.0.1",
            **environment,
        },
    )
    try:
        yield
    finally:
        started.terminate()
        assert started.wait(60) == 0


@pytest.fixture
def budgets(live_db):
    made = []

    def budgets(agent, *, usd):
        made.append(Budget.objects.create(name=unique("budget"), scope="agent", agent=agent.slug, limit_usd=Decimal(usd)))

    yield budgets
    for budget in made:
        budget.delete()


@pytest.fixture
def traffic(make_chat_agent, upstream, open_upstream, budgets):
    """A bit of everything: answers, kept ones, failures, a retry and a fallback, recalls, a budget, and refusals because of it."""
    forget_vectors()
    broken, refusing = open_upstream(), open_upstream()
    upstream.script(Reply("word " * 30, usage=(40, 30), delay_between_s=0.002))
    broken.script(Refusal(500))
    refusing.script(Refusal(400))
    well, keeping = make_chat_agent(upstream, memory_enabled=True), make_chat_agent(upstream, reply_cache_s=600)
    falling = make_chat_agent(broken, fallbacks=[(upstream, "spare")])
    failing = make_chat_agent(refusing)
    poor = make_chat_agent(upstream)
    for agent in (well, keeping, poor):
        ModelPrice.objects.create(
            provider=agent.live_version.provider.slug,
            model="test-model",
            effective_from=datetime(2026, 1, 1, tzinfo=UTC),
            input_usd=1,
            output_usd=1,
        )
    budgets(poor, usd="0.0001")
    numbers = itertools.count()

    def traffic(client):
        fresh = f"Question {next(numbers)}"
        for agent, message in ((keeping, "The same question"), (well, fresh), (falling, fresh), (failing, fresh), (poor, fresh)):
            client.post(f"/api/chat/{agent.slug}", json={"message": message, "stream": True, "session_id": unique("session")}, timeout=120)

    return traffic


def test_each_query_finds_data(traffic, start_server, server_environment, start_prometheus, embedder, free_port):
    server = start_server(EMBEDDER_URL=embedder.base_url)
    nobody = "http://127.0.0.1:9/v1"  # the worker's embedder is away, so that its work fails
    with http_sink() as sink, worker(
        server_environment, WORKER_METRICS_PORT=str(free_port), ALERT_WEBHOOK_URL=f"{sink.url}/hook", EMBEDDER_URL=nobody
    ), server.client() as client:  # fmt: skip
        prometheus = start_prometheus([server.port, free_port])
        left = {(title, filled_in(expression).replace(WHERE_THERE_IS_NONE, "")) for title, expression in QUERIES}

        def all_found():
            traffic(client)
            left.difference_update([query for query in left if any(not math.isnan(value) for _, value in prometheus.query(query[1]))])
            return not left

        try:
            eventually(all_found, what="data for each panel", timeout_s=180, every_s=1)
        except AssertionError:
            pytest.fail(f"no data for {sorted(left)}")
