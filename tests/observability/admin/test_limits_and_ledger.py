"""Limits in the admin, with what holds where nobody set any; and the ledger, to look at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django.test import Client
from uuid_utils.compat import uuid7

from observability.admin import reading
from observability.models import Attempt, AttemptKind, AttemptOutcome, Limit
from tests.factories import make_agent, make_key, make_key_owner

pytestmark = pytest.mark.django_db

LIMITS = "/admin/observability/limit/"
LEDGER = "/admin/observability/attempt/"


def form(**changed):
    return {
        "scope": "key",
        "one_key": "",
        "one_agent": "",
        "requests_per_minute": "60",
        "tokens_per_minute": "",
        "concurrent": "",
        **changed,
    }


def make_attempt(**fields):
    now = datetime.now(UTC)
    return Attempt.objects.create(
        **{
            "id": uuid7(),
            "turn_id": uuid7(),
            "kind": AttemptKind.CHAT,
            "agent": "helper",
            "version": 3,
            "model": "swift",
            "started_at": now,
            "deadline_at": now,
            "outcome": AttemptOutcome.DONE,
            "settled_at": now,
            "settled_xid": 1,
            "prompt_tokens": 1200,
            "cached_tokens": 200,
            "completion_tokens": 34,
            "cost_usd": Decimal("0.0123"),
            "latency_ms": 1500,
            **fields,
        }
    )


def test_what_holds_by_default_is_shown_until_somebody_sets_it(operator: Client, settings):
    settings.ANONYMOUS_REQUESTS_PER_MINUTE = 30
    page = operator.get(LIMITS).content.decode()
    assert "each address without a key: <strong>30 requests a minute</strong>" in page
    assert "each agent: <strong>no limit</strong>" in page
    assert operator.post(f"{LIMITS}add/", form(scope="address", requests_per_minute="5")).status_code == 302
    page = operator.get(LIMITS).content.decode()
    assert "<strong>30 requests" not in page
    assert Limit.objects.get().requests_per_minute == 5


def test_a_limit_for_one_key_or_agent_is_chosen_by_name(operator: Client):
    key = make_key(owner=make_key_owner(name="Web shop"), name="production").key
    make_agent(slug="helper", name="Helper")
    operator.post(f"{LIMITS}add/", form(one_key=key.prefix, concurrent="4"))
    operator.post(f"{LIMITS}add/", form(scope="agent", one_agent="helper"))
    assert set(Limit.objects.values_list("scope", "name")) == {("key", key.prefix), ("agent", "helper")}
    page = operator.get(LIMITS).content.decode()
    assert f"API key Web shop: production ({key.prefix})" in page
    assert "agent Helper (helper)" in page


def test_whom_a_limit_is_for_stays(operator: Client):
    limit = Limit.objects.create(scope="key", requests_per_minute=1)
    assert operator.post(f"{LIMITS}{limit.pk}/change/", form(scope="agent", requests_per_minute="7")).status_code == 302
    limit.refresh_from_db()
    assert (limit.scope, limit.requests_per_minute) == ("key", 7)


def test_a_limit_is_made_once_and_for_one_thing(operator: Client):
    make_agent(slug="helper")
    operator.post(f"{LIMITS}add/", form())
    assert "There is a limit for this already." in operator.post(f"{LIMITS}add/", form(requests_per_minute="77")).content.decode()
    page = operator.post(f"{LIMITS}add/", form(scope="address", one_agent="helper", tokens_per_minute="4321")).content.decode()
    assert "Choose “each agent” above" in page
    assert 'value="4321"' in page, "what was typed stays"
    assert Limit.objects.count() == 1


def test_the_ledger_shows_calls_and_no_content(operator: Client):
    key = make_key(owner=make_key_owner(name="Web shop"), name="production").key
    attempt = make_attempt(key=key.prefix, input_usd=Decimal("0.25"), output_usd=2)
    make_attempt(cost_usd=None, outcome=AttemptOutcome.FAILED)
    page = operator.get(LEDGER).content.decode()
    for words in ("0.0123 USD", "1,200 (200 cached) → 34", "Web shop: production", "unknown price", "1.50 s", "helper v3"):
        assert words in page
    page = operator.get(f"{LEDGER}{attempt.pk}/change/").content.decode()
    assert "input 0.25, output 2.00" in page


def test_the_ledger_can_be_filtered(operator: Client):
    make_agent(slug="helper")
    make_attempt(model="of-now")
    make_attempt(model="of-old", agent="gone", id=UUID(int=int((datetime.now(UTC).timestamp() - 100_000) * 1000) << 80))
    shown = lambda query: {name for name in ("of-now", "of-old") if name in operator.get(f"{LEDGER}{query}").content.decode()}  # noqa: E731
    assert shown("") == {"of-now", "of-old"}
    assert shown("?within=24") == {"of-now"}
    assert shown("?within=168") == {"of-now", "of-old"}
    assert shown("?agent=gone") == {"of-old"}
    assert shown("?key=none-such") == set()
    assert shown("?outcome__exact=failed") == set()


def test_a_long_ledger_is_not_counted_to_its_end(operator: Client, monkeypatch):
    monkeypatch.setattr(reading.NewestPages, "MOST", 2)
    for _ in range(4):
        make_attempt(started_at=datetime.now(UTC) - timedelta(minutes=1))
    assert operator.get(LEDGER).context["cl"].result_count == 2
