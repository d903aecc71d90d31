"""Behind a transaction pooler, as managed databases have one: everything works, and nobody sees what is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx2
import psycopg
import pytest

from memory.isolation import _ACT
from tests.hosting.pgbouncer import CONNECTIONS, pgbouncer
from tests.hosting.platform import HEADERS
from tests.upstream import Reply
from tests.waiting import eventually

PATH = "/api/chat/hosted"
PARROTS = {"ada": "Pico", "bea": "Coco", "cem": "Kiwi", "dan": "Loro", "eva": "Tango", "fay": "Zazu", "gil": "Mango", "hal": "Rio"}


@pytest.fixture
def direct(new_database) -> str:
    return str(new_database())


@pytest.fixture
def pooled(direct: str) -> Iterator[str]:
    with pgbouncer(direct) as url:
        yield url


def ask(client, message: str, user: str, session: str):
    return client.post(PATH, json={"message": message, "user": user, "session_id": session})


def test_the_server_chats_remembers_and_recalls_through_it(direct, pooled, host, manage, upstream) -> None:
    upstream.script(Reply("What a nice bird."))
    hosted = host(DATABASE_URL=pooled, DIRECT_DATABASE_URL=direct, WEB_CONCURRENCY="2", DATABASE_POOL_SIZE="4", MEMORY_DEADLINE_MS="10000")
    key = manage(hosted.environment, "keys", "create", "aviary", "web", "--agent", "hosted").stdout.strip()
    web, _ = hosted.start_web(), hosted.start("worker")

    async def drive() -> None:
        headers = HEADERS | {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{web.port}", headers=headers, timeout=120, trust_env=False) as client:
            told = [ask(client, f"My parrot is called {name}.", user, f"{user}-1") for user, name in PARROTS.items()]
            assert {answer.status_code for answer in await asyncio.gather(*told)} == {200}
            await asyncio.to_thread(eventually, lambda: _remembered(direct) == len(PARROTS), what="all is remembered", timeout_s=90)
            asked = [ask(client, "What is my parrot called?", user, f"{user}-{number}") for number in (2, 3, 4) for user in PARROTS]
            assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}

    asyncio.run(drive())
    prompts = [str(call.body["messages"]) for call in upstream.calls if "What is my parrot called?" in str(call.body["messages"])]
    named = [[name for name in PARROTS.values() if name in prompt] for prompt in prompts]
    assert sorted(named) == sorted([name] for name in PARROTS.values() for _ in range(3))
    with psycopg.connect(direct) as database:
        [listening] = database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        ).fetchone() or [0]
    assert listening == 1


def _remembered(url: str) -> int:
    with psycopg.connect(url) as database:
        [count] = database.execute("SELECT count(*) FROM memory_turn WHERE remembered_at IS NOT NULL").fetchone() or [0]
        return int(count)


def test_what_a_transaction_sets_ends_with_it(direct, pooled) -> None:
    """More clients than connections take turns on them; each finds its own owners, and none left by the one before."""

    async def client(owner: int) -> set[tuple[str, str]]:
        left = set()
        async with await psycopg.AsyncConnection.connect(pooled, autocommit=True, prepare_threshold=None) as connection:
            for _ in range(20):
                async with connection.transaction():
                    found = await connection.execute("SELECT current_setting('app.owners', true), current_user")
                    left.add(await found.fetchone())
                    await connection.execute(_ACT, [f"{{{owner}}}", "chatbot_app"])
                    found = await connection.execute("SELECT current_setting('app.owners', true), current_user, pg_sleep(0.002)")
                    assert (await found.fetchone())[:2] == (f"{{{owner}}}", "chatbot_app")
        return left

    async def drive() -> set[tuple[str, str]]:
        return set().union(*await asyncio.gather(*(client(owner) for owner in range(1, 6 * CONNECTIONS))))

    with psycopg.connect(direct) as database:
        [[user]] = database.execute("SELECT current_user")
    assert asyncio.run(drive()) <= {(None, user), ("", user)}


def test_without_a_direct_url_the_worker_finds_turns_by_looking(pooled, host, upstream) -> None:
    hosted = host(DATABASE_URL=pooled, WEB_CONCURRENCY="1")
    web, worker = hosted.start_web(), hosted.start("worker")
    with httpx2.Client(base_url=f"http://127.0.0.1:{web.port}", headers=HEADERS, timeout=120, trust_env=False) as client:
        assert client.post(PATH, json={"message": "Hello", "session_id": "s"}).status_code == 200
    eventually(lambda: _remembered(pooled) == 1, what="it is remembered", timeout_s=90)
    assert worker.process.poll() is None
