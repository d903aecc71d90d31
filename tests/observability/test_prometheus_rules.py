"""The alert rules and the scrape configuration that are shipped: right in form, tried by promtool, and by a real Prometheus."""

import re
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx2
import pytest
import yaml

from observability.models import Budget, BudgetPeriod
from tests.factories import unique
from tests.live_server import METRICS_TOKEN, PROJECT_DIR
from tests.upstream import Refusal, Reply
from tests.waiting import eventually

FOLDER = PROJECT_DIR / "deploy" / "prometheus"
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]]


def test_promtool_finds_no_fault(promtool, tmp_path):
    shutil.copytree(FOLDER, tmp_path / "prometheus")
    (tmp_path / "prometheus" / "token").write_text(METRICS_TOKEN)
    for arguments in (
        ["check", "rules", str(FOLDER / "rules.yml")],
        ["check", "config", str(tmp_path / "prometheus" / "prometheus.yml")],
        ["test", "rules", str(FOLDER / "rules_test.yml")],
    ):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_rule_says_what_to_do_and_is_tried(rule):
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert len(rule["annotations"]["summary"]) > 10
    assert (PROJECT_DIR / rule["annotations"]["runbook_url"]).exists()
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    tried = [found for test in tests for found in test.get("alert_rule_test", ()) if found["alertname"] == rule["alert"]]
    assert any(found["exp_alerts"] for found in tried)


def test_rules_name_metrics_that_there_are():
    documented = set(re.findall(r"^\| `(\w+)` \|", (PROJECT_DIR / "docs/metrics.md").read_text(), re.MULTILINE))
    named = {name for rule in RULES for name in re.findall(r"\bchatbot_\w+", rule["expr"])}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= documented


@pytest.fixture
def quick_rules(tmp_path):
    """The shipped rules, with seconds for minutes."""
    text = (FOLDER / "rules.yml").read_text()
    quick, changes = re.subn(r"\[\d+m\]", "[6s]", re.sub(r"for: \w+", "for: 1s", text))
    assert changes > 5
    path = tmp_path / "rules.yml"
    path.write_text(quick)
    return path


@pytest.fixture
def spent_budget(live_db):
    now = datetime.now(UTC)
    budget = Budget.objects.create(name=unique("budget"), scope="agent", agent=unique("agent"), limit_usd=Decimal(2))
    period = {"starts_at": now - timedelta(hours=1), "ends_at": now + timedelta(hours=1)}
    BudgetPeriod.objects.create(budget=budget, spent_usd=Decimal(2), **period)
    yield budget
    Budget.objects.filter(pk=budget.pk).delete()


def test_rules_fire_and_resolve_in_a_real_prometheus(make_chat_agent, upstream, start_server, start_prometheus, quick_rules, spent_budget):
    agent = make_chat_agent(upstream)
    provider = agent.live_version.provider.slug
    server = start_server()
    prometheus = start_prometheus([server.port], rules=[quick_rules])
    troubles = [("ChatbotErrorRate", {"agent": agent.slug}), ("ChatbotUpstreamDown", {"provider": provider})]
    budget = ("ChatbotBudgetSpent", {"budget": spent_budget.name})

    def fires(*alerts):
        return [prometheus.is_firing(name, **labels) for name, labels in alerts]

    with server.client() as client:

        def chat_until(condition, *, what):
            def ask():
                client.post(f"/api/chat/{agent.slug}", json={"message": "Hi"})
                return condition()

            eventually(ask, what=what, timeout_s=90, every_s=0.1)

        upstream.script(Reply())
        chat_until(lambda: prometheus.value(f'sum(chatbot_messages_total{{agent="{agent.slug}"}})'), what="a turn is scraped")
        assert not any(fires(*troubles))
        upstream.script(Refusal(400))
        chat_until(lambda: all(fires(*troubles, budget)), what="the alerts fire")
        upstream.script(Reply())
        spent_budget.delete()
        chat_until(lambda: not any(fires(*troubles, budget)), what="the alerts are over")
        eventually(lambda: not prometheus.is_firing("ChatbotNotScraped"), what="the server is scraped")  # a scrape may have been late
    server.stop()
    eventually(lambda: prometheus.is_firing("ChatbotNotScraped", job="chatbot-web"), what="that it is gone is noticed", timeout_s=90)
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{server.url}/health", trust_env=False)
