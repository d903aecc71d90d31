"""PostgreSQL or Redis gone: what is promised then, and recovery without a restart."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chatbot_site.local import postgresql
from chatbot_site.local.processes import Interrupts
from tests.live_server import METRICS_TOKEN, PROJECT_DIR
from tests.upstream import Gate, Reply
from tests.waiting import eventually, timely

MAKE_AGENT = """
import sys, django
django.setup()
from tests.factories import make_agent, make_provider
print(make_agent(provider=make_provider(base_url=sys.argv[1])).slug)
"""


class Database:
    """A PostgreSQL of this test's own, to be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self._database = postgresql.embedded(folder, durable=False)
        self._database.prepare(Interrupts())
        self.url = self._database.url
        self._log = folder / "postgresql.log"

    def start(self) -> None:
        self._program = self._database.program(log=self._log)
        self._program.start()
        eventually(self._program.ready, what="PostgreSQL is ready")

    def stop(self) -> None:
        self._program.stop()


@pytest.fixture
def database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("database")
    database = Database(folder)
    database.start()
    yield database
    database.stop()


@pytest.fixture
def chat(database, upstream, start_server):
    """A server on that database, with an agent: `chat()` posts and returns the response."""
    environment = {**os.environ, "DATABASE_URL": database.url, "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test"}
    run = {"cwd": PROJECT_DIR, "env": environment, "check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], **run)
    slug = subprocess.run([sys.executable, "-c", MAKE_AGENT, upstream.base_url], **run).stdout.split()[-1]
    server = start_server(DATABASE_URL=database.url, PROMISED_DATABASE_TIMEOUTS="yes")
    with server.client() as client:

        def chat(**fields):
            return client.post(f"/api/chat/{slug}", json={"message": "Hi", **fields})

        chat.client = client
        chat.slug = slug
        yield chat


def test_metrics_are_told_without_postgresql(chat, database):
    def scrape():
        text = chat.client.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}).text
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))}

    assert chat().status_code == 200
    told = eventually(lambda: found if (found := scrape())["chatbot_database_up"] else None, what="the database is seen")
    done = f'chatbot_messages_total{{agent="{chat.slug}",outcome="done"}}'
    waiting = 'chatbot_jobs_waiting{queue="summaries"}'
    assert (told["chatbot_database_up"], told[done], told[waiting]) == (1, 1, 0)
    database.stop()
    told = timely(scrape, within_s=3)
    assert (told["chatbot_database_up"], told[done]) == (0, 1)
    assert waiting not in told  # unknown is not none
    database.start()
    eventually(lambda: scrape()["chatbot_database_up"] == 1, what="the database is up again")


def test_postgresql_gone_is_a_quick_503_and_recovery_needs_no_restart(chat, database):
    assert chat().status_code == 200
    database.stop()
    time.sleep(0.6)  # the snapshot of the live version has aged: each way into the database is closed
    for stream in (False, True, False):
        response = timely(lambda stream=stream: chat(stream=stream), within_s=3)
        assert response.status_code == 503, response.text
        assert int(response.headers["retry-after"]) > 0
        assert response.headers["content-type"] == "application/problem+json"
    assert chat.client.get("/api/agents").status_code == 503
    assert chat.client.get("/health").status_code == 200
    ready = chat.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert "postgres" not in ready.text.lower().replace("postgresql", "") or database.url not in ready.text
    database.start()
    eventually(lambda: chat().status_code == 200, what="chat answers again")
    assert chat.client.get("/health/ready").status_code == 200


def test_postgresql_restarted_between_two_messages_costs_no_message(chat, database):
    session = chat().json()["session_id"]
    database.stop()
    database.start()
    assert [chat(session_id=session).status_code for _ in range(10)] == [200] * 10


def test_postgresql_restarted_during_an_answer_loses_nothing(chat, database, upstream):
    gate = Gate()
    upstream.script(Reply("one two three", gate=gate, gate_before_chunk=2), Reply("next"))
    with chat.client.stream("POST", f"/api/chat/{chat.slug}", json={"message": "Hi", "session_id": "s", "stream": True}) as response:
        parts = response.iter_text()
        seen = next(parts)
        upstream.wait_for_calls(1)
        database.stop()
        gate.open()
        while "three" not in seen:
            seen += next(parts)
        database.start()
        seen += "".join(parts)
    assert "event: done" in seen or '"status":503' in seen

    def is_in_the_prompt():
        chat(session_id="s")
        return "one two three" in [message["content"] for message in upstream.calls[-1].messages]

    eventually(is_in_the_prompt, what="the answer is stored", every_s=0.5, timeout_s=60)


def test_chat_answers_without_redis(make_chat_agent, upstream, start_server):
    agent = make_chat_agent(upstream)
    server = start_server(REDIS_URL="redis://127.0.0.1:1/0")
    with server.client() as client:

        def chat(*, stream):
            return client.post(f"/api/chat/{agent.slug}", json={"message": "Hi", "stream": stream})

        assert chat(stream=False).status_code == 200  # the first one in a process loads the tokenizer, too
        for stream in (False, True):
            assert timely(lambda stream=stream: chat(stream=stream), within_s=1).status_code == 200
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded"), ready.text
        assert client.get("/health").status_code == 200
