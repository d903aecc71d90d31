"""Two workers and a target that hangs: chat does not notice, and the others are told once that a provider is down and is back."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from observability.alerts.addresses import Address, set_address
from observability.models import AlertRule, AlertTarget, Incident, TargetKind
from tests.factories import unique
from tests.live_server import PROJECT_DIR
from tests.sinks import DISCORD_PATH, black_hole, http_sink
from tests.upstream import Refusal, Reply
from tests.waiting import eventually


@pytest.fixture
def rule(live_db):
    """The rule of providers that are down, without its patience."""
    rules = AlertRule.objects.filter(kind="upstream_down")
    rules.update(clears_s=0)
    yield rules.get()
    rules.update(clears_s=60)


@pytest.fixture
def make_target(live_db):
    made = []

    def make_target(kind, address):
        made.append(AlertTarget(name=unique("target"), kind=kind))
        set_address(made[-1], Address(address))
        made[-1].save()
        return made[-1]

    yield make_target
    for target in made:
        target.delete()


def test_a_sink_that_hangs_is_nobodys_trouble_but_its_own(rule, make_target, make_chat_agent, upstream, server, server_environment):
    agent = make_chat_agent(upstream)
    provider = agent.live_version.provider.slug

    def ask():
        began = time.monotonic()
        with server.client() as client:
            status = client.post(f"/api/chat/{agent.slug}", json={"message": "Hello"}, timeout=60).status_code
        return status, time.monotonic() - began

    def told(sink):
        return [line.split(":")[0] for line in sink.texts if provider in line]

    with http_sink() as discord, http_sink() as webhook, black_hole() as host:
        make_target(TargetKind.DISCORD, discord.url + DISCORD_PATH)
        hanging = make_target(TargetKind.WEBHOOK, f"http://{host}/")
        environment = {
            **os.environ, **server_environment, "OUTBOUND_ALLOWED_HOSTS": "127.0.0.1", "ALERT_WEBHOOK_URL": f"{webhook.url}/hook",
            "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test",
        }  # fmt: skip
        workers = [subprocess.Popen([sys.executable, "manage.py", "worker"], cwd=PROJECT_DIR, env=environment) for _ in range(2)]
        try:
            upstream.script(Refusal(500))
            assert {ask()[0] for _ in range(3)} == {502}
            eventually(lambda: told(discord) and told(webhook), what="the alert arrives", timeout_s=90)
            upstream.script(Reply("Back again."))
            answers = [ask() for _ in range(5)]
            assert {status for status, _ in answers} == {200}
            assert max(seconds for _, seconds in answers) < 10
            eventually(lambda: len(told(discord)) == len(told(webhook)) == 2, what="the end arrives", timeout_s=90)
            eventually(lambda: hanging.notices.filter(tries__gt=0).exists(), what="the one that hangs is given time", timeout_s=90)
        finally:
            for worker in workers:
                worker.terminate()
            assert [worker.wait(60) for worker in workers] == [0, 0]
        assert told(discord) == told(webhook) == ["NEW", "OVER"]
    assert Incident.objects.filter(subject=provider).count() == 1
