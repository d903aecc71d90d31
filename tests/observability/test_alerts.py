"""Telling of budgets: once for each threshold and period, never lost, to a real HTTP sink."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from uuid_utils.compat import uuid7

from observability.alerts import NotTold, keep_telling_of_budgets, tell_of_budgets
from observability.budgets import Claim, active_budgets, reserve, settle_reservations
from observability.models import Budget, BudgetPeriod
from observability.outbound import new_client
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)


class Sink:
    """Takes what is posted to `url`, with the status that `answers` says."""

    def __init__(self) -> None:
        self.answers = 204
        self.bodies: list[dict[str, str]] = []
        self.tried = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                sink.tried += 1
                if sink.answers < 300:
                    sink.bodies.append(body)
                self.send_response(sink.answers)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    @property
    def texts(self) -> list[str]:
        return [line for body in self.bodies for line in body["text"].split("\n")]


@pytest.fixture
def sink(settings):
    sink = Sink()
    thread = threading.Thread(target=sink.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    settings.ALERT_WEBHOOK_URL = sink.url
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    yield sink
    sink.server.shutdown()
    thread.join()
    sink.server.server_close()


def make_budget(**fields):
    return Budget.objects.create(**{"name": f"budget {uuid7()}", "limit_usd": Decimal(10), **fields})


def spend(usd, *, tokens=1, subject_id=3):
    """Make a call that costs so much, and return why it was refused."""
    asked = Claim(
        attempt_id=uuid7(), agent="helper", key="k7", subject_id=subject_id, usd=Decimal(usd), tokens=tokens, at=datetime.now(UTC)
    )
    with transaction.atomic():
        [refusal] = reserve([asked], budgets=active_budgets())
        if refusal is None:
            settle_reservations({asked.attempt_id: (Decimal(usd), tokens)})
    return refusal


@async_to_sync
async def tell():
    async with new_client() as client:
        return await tell_of_budgets(client)


def test_each_threshold_is_told_once(sink):
    budget = make_budget(name="Web shop", time_zone="Europe/Berlin")
    spend("4.99")
    assert tell() == 0
    spend("0.01")
    assert (tell(), tell()) == (1, 0)
    spend("2")
    assert tell() == 0
    spend("1")
    assert (tell(), tell()) == (1, 0)
    spend("2")
    assert (tell(), tell()) == (1, 0)
    assert [body["text"] == body["content"] for body in sink.bodies] == [True] * 3
    assert [text.split(". ")[0] for text in sink.texts] == [
        "Budget “Web shop”: 50 % is spent (5.00 of 10.00 USD)",
        "Budget “Web shop”: 80 % is spent (8.00 of 10.00 USD)",
        "Budget “Web shop”: 100 % is spent (10.00 of 10.00 USD)",
    ]
    assert "00:00 (Europe/Berlin)" in sink.texts[0]
    assert BudgetPeriod.objects.get(budget=budget).told_percent == 100


def test_several_thresholds_at_once_are_one_notice(sink):
    make_budget()
    spend("9")
    assert tell() == 1
    assert ": 80 % is spent" in sink.texts[0]


def test_a_budget_that_refuses_calls_counts_as_spent(sink):
    make_budget(limit_usd=Decimal(10))
    spend("8.5")
    assert tell() == 1
    assert spend("2").is_spent
    assert tell() == 1
    assert "calls are refused now (8.50 of 10.00 USD)" in sink.texts[-1]
    assert spend("2").is_spent
    assert tell() == 0


def test_a_raised_limit_is_told_of_anew(sink):
    budget = make_budget(limit_usd=Decimal(10))
    spend("8.5")
    spend("2")
    assert tell() == 1
    budget.limit_usd = Decimal(20)
    budget.save()
    assert spend("2") is None
    assert tell() == 0
    assert BudgetPeriod.objects.get(budget=budget).told_percent == 50
    spend("6")
    assert tell() == 1
    assert ": 80 % is spent (16.50 of 20.00 USD)" in sink.texts[-1]


def test_tokens_count_and_each_person_by_themselves(sink):
    make_budget(scope="user", limit_usd=None, limit_tokens=1000)
    spend("0", tokens=500, subject_id=3)
    spend("0", tokens=900, subject_id=4)
    assert tell() == 2
    assert sorted(text.split(". ")[0].partition("” ")[2] for text in sink.texts) == [
        "of person #3: 50 % is spent (500 of 1,000 tokens)",
        "of person #4: 80 % is spent (900 of 1,000 tokens)",
    ]
    assert len(sink.bodies) == 1, "what is due together is one message"


def test_a_message_fits_into_what_discord_takes(sink, settings):
    settings.ENVIRONMENT_NAME = "p" * 40
    for _ in range(12):
        make_budget(
            name=f"{'n' * 60} {uuid7()}", limit_usd=Decimal("99999999"), limit_tokens=2**62, time_zone="America/Argentina/ComodRivadavia"
        )
    spend("99999998", tokens=2**62 - 1)
    assert tell() == 12
    assert [len(body["text"].split("\n")) for body in sink.bodies] == [5, 5, 2]
    assert max(len(body["text"]) for body in sink.bodies) < 2000


def test_a_notice_that_the_target_refuses_is_told_later(sink):
    make_budget()
    spend("6")
    sink.answers = 503
    with pytest.raises(NotTold, match="503"):
        tell()
    assert BudgetPeriod.objects.get().told_percent == 0
    sink.answers = 200
    assert (tell(), tell()) == (1, 0)
    assert len(sink.texts) == 1


def test_a_target_that_is_away_loses_nothing(sink, settings):
    make_budget()
    spend("6")
    url, settings.ALERT_WEBHOOK_URL = settings.ALERT_WEBHOOK_URL, "http://127.0.0.1:1/hook"
    with pytest.raises(NotTold, match="could not be reached"):
        tell()
    settings.ALERT_WEBHOOK_URL = url
    assert tell() == 1


def test_without_a_target_the_log_is_told(settings, sink):
    settings.ALERT_WEBHOOK_URL = ""
    make_budget()
    spend("6")
    assert (tell(), tell()) == (1, 0)
    assert sink.tried == 0


def test_several_workers_tell_once(sink):
    for _ in range(25):
        make_budget()
    spend("6")

    async def work():
        stopping = asyncio.Event()
        workers = [asyncio.create_task(keep_telling_of_budgets(stopping, every_s=0.01)) for _ in range(4)]
        await asyncio.to_thread(eventually, lambda: len(sink.texts) >= 25, what="the notice or question comes")
        stopping.set()
        await asyncio.gather(*workers)

    async_to_sync(work)()
    assert len(sink.texts) == len(set(sink.texts)) == 25


def test_the_worker_tries_a_target_again(sink):
    make_budget()
    spend("6")
    sink.answers = 500

    async def work():
        stopping = asyncio.Event()
        worker = asyncio.create_task(keep_telling_of_budgets(stopping, every_s=0.02))
        await asyncio.to_thread(eventually, lambda: sink.tried >= 2, what="the notice or question comes")
        sink.answers = 200
        await asyncio.to_thread(eventually, lambda: bool(sink.bodies), what="the notice or question comes")
        stopping.set()
        await worker

    async_to_sync(work)()
    assert len(sink.texts) == 1
