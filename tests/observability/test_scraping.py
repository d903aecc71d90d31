"""/metrics: who may read it, and that all of it is documented and as Prometheus wants it."""

import os
import subprocess
import sys

import httpx2
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from observability.scraping import may_scrape, standing_metrics
from tests.live_server import METRICS_TOKEN, PROJECT_DIR
from tests.prometheus import DOCUMENTED
from tests.waiting import eventually

BEARER = {"Authorization": f"Bearer {METRICS_TOKEN}"}


def families(text):
    """Each metric that `text` has, as (type, labels)."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
    return found


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {METRICS_TOKEN}", METRICS_TOKEN, "Bearer", f"Bearer {METRICS_TOKEN}x"])
def test_metrics_ask_for_their_token(api, header):
    response = api.get("/metrics", headers={"Authorization": header} if header else {})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["type"] == "/errors/unauthorized"


def test_without_a_token_they_are_closed_but_in_development(settings):
    settings.METRICS_TOKEN = ""
    assert not may_scrape("")
    assert not may_scrape("Bearer ")
    settings.METRICS_NEED_TOKEN = False
    assert may_scrape("")
    settings.METRICS_TOKEN = "one"  # who sets one in development means it
    assert not may_scrape("")
    assert may_scrape("bearer one")


def test_prometheus_may_call_by_address(api):
    assert api.get("/metrics", headers={**BEARER, "Host": "10.1.2.3:8000"}).status_code == 200


def test_what_is_told_is_as_prometheus_wants_it(api, promtool):
    api.get("/admin/login/")
    answer = api.get("/metrics", headers=BEARER)
    assert answer.headers["content-type"].startswith("text/plain")
    checked = promtool("check", "metrics", given=answer.text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_all_that_is_told_is_documented(api):
    api.get("/admin/login/")
    for name, (kind, labels) in families(api.get("/metrics", headers=BEARER).text).items():
        assert name in DOCUMENTED, f"docs/metrics.md does not have {name}"
        assert kind == DOCUMENTED[name][0], name
        assert labels <= DOCUMENTED[name][1], name


def test_all_that_is_documented_is_defined():
    ours = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in [*REGISTRY.collect(), *standing_metrics()]
        if family.name.startswith("chatbot_")
    }
    assert {name: kind for name, (kind, _) in DOCUMENTED.items() if name.startswith("chatbot_")} == ours


def test_a_turn_and_its_call_are_told(make_chat_agent, upstream, api):
    agent = make_chat_agent(upstream)
    api.post(f"/api/chat/{agent.slug}", json={"message": "Hi"})
    api.post(f"/api/chat/{agent.slug}", json={"message": "Hi", "stream": True})

    def told():
        text = api.get("/metrics", headers=BEARER).text
        return [line for line in text.splitlines() if f'"{agent.slug}"' in line and "_total{" in line]

    tokens = f'chatbot_tokens_total{{agent="{agent.slug}",kind="%s",model="test-model"}} %s'
    assert set(told()) >= {
        f'chatbot_messages_total{{agent="{agent.slug}",outcome="done"}} 2.0',
        tokens % ("prompt", "22.0"),
        tokens % ("completion", "14.0"),
    }


def test_addresses_sessions_and_texts_are_never_labels(make_chat_agent, upstream, api):
    agent = make_chat_agent(upstream)
    for number in range(3):
        api.post(f"/api/chat/{agent.slug}", json={"message": f"canary-{number}", "session_id": f"canary-session-{number}"})
        api.post(f"/api/chat/canary-agent-{number}", json={"message": "Hi"})
        api.get(f"/canary-path-{number}", headers={"X-Request-ID": f"canary-id-{number}"})
        api.request(f"CANARY{number}", "/admin/login/")
    assert "canary" not in api.get("/metrics", headers=BEARER).text.lower()


def test_the_worker_tells_on_a_port_of_its_own(server_environment, free_port, promtool):
    environment = {
        **os.environ,
        **server_environment,
        "METRICS_TOKEN": METRICS_TOKEN,
        "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test",
        "WORKER_METRICS_PORT": str(free_port),
    }
    worker = subprocess.Popen([sys.executable, "manage.py", "worker"], cwd=PROJECT_DIR, env=environment, stderr=subprocess.DEVNULL)
    try:

        def scrape(**headers):
            try:
                return httpx2.get(f"http://127.0.0.1:{free_port}/metrics", headers=headers, timeout=30, trust_env=False)
            except httpx2.TransportError:
                return None

        refused = eventually(scrape, what="the worker's port answers", timeout_s=120)
        assert refused.status_code == 401
        told = scrape(**BEARER)
        assert told.status_code == 200
        assert {"chatbot_jobs_waiting", "chatbot_job_failures_total", "process_resident_memory_bytes"} <= set(families(told.text))
        assert promtool("check", "metrics", given=told.text).returncode == 0
    finally:
        worker.terminate()
        assert worker.wait(90) == 0
