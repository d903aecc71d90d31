"""PostgreSQL is away: ALERT_WEBHOOK_URL hears of it once, and once of its end, with and without Redis."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit, urlunsplit

import pytest
from asgiref.sync import async_to_sync

from observability.alerts.outage import Outage, watch
from observability.outbound import new_client
from observability.redis import PREFIX
from tests.factories import unique
from tests.live_server import PROJECT_DIR
from tests.ports import free_port
from tests.waiting import eventually

# The worker's own watch, with less patience.
WORKER = """
import asyncio, os
from datetime import timedelta
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatbot_site.settings.test")
import django
django.setup()
from observability.alerts import outage, watching
outage.DOWN_AFTER = outage.UP_AFTER = timedelta(seconds=0.2)
outage._MARK += str(os.getpid())
watching._WATCH_EVERY_S = 0.1
asyncio.run(watching.keep_alerting(asyncio.Event()))
"""
BEGAN = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)


class Gate:
    """A port in front of a server, which can be shut: connections break, and new ones are refused."""

    def __init__(self, host, port):
        self._behind = (host, port)
        self._pairs = []
        self._lock = threading.Lock()  # so that no connection comes through while the gate is being shut
        self.port = free_port()  # nobody else takes it while the gate is shut
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.passed = 0

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *_):
        self.close()

    def open(self):
        if self._listener.fileno() == -1:
            self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._let_in, args=[self._listener], daemon=True).start()

    def close(self):
        with self._lock, suppress(OSError):  # it may be shut
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._break()

    def _break(self):
        for each in self._pairs:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._pairs.clear()

    def _let_in(self, listener):
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = self._reach()
                for source, drain in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=[source, drain], daemon=True).start()
                with self._lock:
                    self._pairs += [near, far]
                    if listener.fileno() == -1:  # it was shut meanwhile
                        self._break()

    def _reach(self):
        host, port = self._behind
        if not host.startswith("/"):
            return socket.create_connection(self._behind)
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{host}/.s.PGSQL.{port}")
        return far

    def _carry(self, source, drain):
        with suppress(OSError):
            while data := source.recv(65_536):
                self.passed += len(data)
                drain.sendall(data)


@pytest.fixture(autouse=True)
def _mark_of_its_own(monkeypatch):
    monkeypatch.setattr("observability.alerts.outage._MARK", f"{PREFIX}{unique('mark')}")


@async_to_sync
async def see(outage, is_up, seconds):
    async with new_client() as client:
        await watch(outage, client, is_up=is_up, now=BEGAN + timedelta(seconds=seconds))


def live_through(*outages):
    """Down from 0 to 60 seconds, with a short moment of being up; then up."""
    for is_up, seconds in ((False, 0), (False, 29), (False, 31), (False, 45), (True, 60), (False, 65), (True, 70), (True, 80), (True, 90)):
        for outage in outages:
            see(outage, is_up, seconds)


def test_it_is_told_once_with_its_end(webhook):
    live_through(Outage())
    [down, up] = [body["text"] for body in webhook.bodies]
    assert "PostgreSQL has not answered since 14:00:00 UTC" in down
    assert "docs/runbooks/postgresql_down.md" in down
    assert "PostgreSQL answers again (after 2 min)" in up or "(after 1 min)" in up


def test_a_short_absence_is_not_told(webhook):
    outage = Outage()
    for is_up, seconds in ((False, 0), (False, 20), (True, 25), (False, 40), (False, 60)):
        see(outage, is_up, seconds)
    assert webhook.tried == 0


def test_of_several_workers_one_tells(webhook):
    live_through(Outage(), Outage(), Outage())
    assert len(webhook.bodies) == 2


@pytest.mark.usefixtures("redis_gone")
def test_it_is_told_while_redis_is_gone_too(webhook):
    live_through(Outage())
    assert len(webhook.bodies) == 2


def test_a_webhook_that_is_away_is_told_at_the_next_look(webhook):
    outage = Outage()
    webhook.answers = 500
    see(outage, False, 0)
    see(outage, False, 31)
    webhook.answers = 200
    see(outage, False, 36)
    assert (webhook.tried, len(webhook.bodies)) == (2, 1)


def test_without_a_webhook_nothing_happens(settings):
    settings.ALERT_WEBHOOK_URL = ""
    live_through(Outage())


@pytest.mark.django_db(transaction=True)
def test_a_worker_tells_of_a_database_that_is_really_gone_and_back(webhook, server_environment):
    database = urlsplit(server_environment["DATABASE_URL"])
    account, _, host = database.netloc.rpartition("@")
    with Gate(unquote(host.partition(":")[0]), database.port or 5432) as gate:
        behind = urlunsplit(database._replace(netloc=f"{account}@127.0.0.1:{gate.port}"))
        environment = {**os.environ, **server_environment, "DATABASE_URL": behind, "ALERT_WEBHOOK_URL": f"{webhook.url}/hook"}
        worker = subprocess.Popen([sys.executable, "-c", WORKER], env=environment, cwd=PROJECT_DIR)
        try:
            eventually(lambda: gate.passed, what="the worker asks the database", timeout_s=120)
            assert webhook.tried == 0
            gate.close()
            eventually(lambda: webhook.bodies, what="the outage is told", timeout_s=120)
            gate.open()
            eventually(lambda: len(webhook.bodies) == 2, what="the end is told", timeout_s=120)
        finally:
            worker.terminate()
            worker.wait()
    assert "PostgreSQL has not answered" in webhook.bodies[0]["text"]
    assert "PostgreSQL answers again" in webhook.bodies[1]["text"]
