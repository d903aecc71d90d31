"""Sinks for alerts, targets that lead to them, and the worker's rounds, done by hand at a given time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from observability.alerts.addresses import read_address, set_address
from observability.alerts.incidents import look
from observability.alerts.sending import send_due
from observability.models import AlertKind, AlertRule, AlertTarget, TargetKind
from observability.outbound import new_client
from observability.redis import RedisDown, _Breaker, redis_call
from tests.factories import unique
from tests.sinks import DISCORD_PATH, SLACK_PATH, http_sink, mail_sink


@pytest.fixture
def slack():
    with http_sink() as sink:
        yield sink


@pytest.fixture
def discord():
    with http_sink() as sink:
        yield sink


@pytest.fixture
def webhook(settings):
    """Behind ALERT_WEBHOOK_URL."""
    with http_sink() as sink:
        settings.ALERT_WEBHOOK_URL = f"{sink.url}/hook"
        yield sink


@pytest.fixture
def mail():
    with mail_sink() as sink:
        yield sink


@pytest.fixture(autouse=True)
def allowed(settings):
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    settings.ENVIRONMENT_NAME = "tests"


@pytest.fixture
def redis_gone(settings, monkeypatch):
    """Redis does not answer, for this test alone."""
    monkeypatch.setattr("observability.redis._breaker", _Breaker())
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}}
    with pytest.raises(RedisDown):
        redis_call(lambda client: client.ping())


def make_target(kind, to, *, server="", **fields):
    target = AlertTarget(name=unique("target"), kind=kind, **fields)
    set_address(target, read_address(kind, to, server=server))
    target.save()
    return target


@pytest.fixture
def slack_target(slack, db):
    return make_target(TargetKind.SLACK, slack.url + SLACK_PATH)


@pytest.fixture
def discord_target(discord, db):
    return make_target(TargetKind.DISCORD, discord.url + DISCORD_PATH)


@pytest.fixture
def mail_target(mail, db):
    return make_target(TargetKind.EMAIL, "ops@example.org, boss@example.org", server=mail.url)


@pytest.fixture
def only(db):
    """Switch on one rule and change it: `only("latency", threshold=2)`. All others are off."""

    def only(kind, **fields):
        AlertRule.objects.exclude(kind=kind).update(is_active=False)
        AlertRule.objects.filter(kind=kind).update(**{"is_active": True, "holds_s": 0, "clears_s": 0, **fields})
        return AlertRule.objects.get(kind=AlertKind(kind))

    return only


def look_at(now=None):
    """Look for what is wrong, as a worker does; return what changed."""
    with transaction.atomic():
        return look(now=now or datetime.now(UTC))


@async_to_sync
async def send_all(now=None):
    """Send what is due, and return how many messages were taken."""
    async with new_client() as client:
        return await send_due(client, now=now or datetime.now(UTC))
