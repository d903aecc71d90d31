"""Bursts and group commit on real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import psycopg
import pytest
from django.db import DataError, IntegrityError, OperationalError, connection

from observability import bursts
from observability.bursts import GroupCommit, run_burst
from tests.waiting import eventually


def _parameters() -> dict[str, str]:
    known = connection.get_connection_params()
    return {name: known[name] for name in ("dbname", "host", "port", "user", "password") if known.get(name)}


@pytest.fixture
def table(live_db: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS bursts_under_test")
        cursor.execute("CREATE TABLE bursts_under_test (item int PRIMARY KEY, transaction xid8 DEFAULT pg_current_xact_id())")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE bursts_under_test")


def insert(items: Sequence[int]) -> list[int]:
    """Insert `items`; 13 divides by zero. Returns each item's double."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bursts_under_test (item) SELECT item + 0 / (item - 13) FROM unnest(%s::int[]) AS item", [list(items)])
    return [item * 2 for item in items]


def rows(sql: str = "SELECT item FROM bursts_under_test ORDER BY item") -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [row[0] for row in cursor.fetchall()]


def test_many_items_share_few_transactions_and_get_their_own_results(table: None) -> None:
    async def run() -> list[int]:
        group: GroupCommit[int, int] = GroupCommit(insert)
        return await asyncio.gather(*(group.submit(item) for item in range(100, 600)))

    assert asyncio.run(run()) == [item * 2 for item in range(100, 600)]
    assert len(rows()) == 500
    [transactions] = rows("SELECT count(DISTINCT transaction) FROM bursts_under_test")
    assert 500 // 64 <= transactions <= 20


def test_a_batch_takes_no_more_than_its_limit(table: None) -> None:
    sizes: list[int] = []

    def note(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return insert(items)

    async def run() -> None:
        group: GroupCommit[int, int] = GroupCommit(note, max_items=10, parallel=1)
        await asyncio.gather(*(group.submit(item) for item in range(100, 200)))

    asyncio.run(run())
    assert max(sizes) == 10
    assert sum(sizes) == 100


def test_alone_an_item_is_committed_at_once(table: None) -> None:
    async def run() -> None:
        group: GroupCommit[int, int] = GroupCommit(insert)
        for item in (1, 2, 3):
            assert await group.submit(item) == item * 2
            assert rows_now() == list(range(1, item + 1))

    def rows_now() -> list[int]:
        with psycopg.connect(**_parameters()) as other:
            return [row[0] for row in other.execute("SELECT item FROM bursts_under_test ORDER BY item")]

    asyncio.run(run())


def test_a_poisoned_item_fails_alone(table: None) -> None:
    async def run() -> list[int | BaseException]:
        group: GroupCommit[int, int] = GroupCommit(insert, parallel=1)
        return await asyncio.gather(*(group.submit(item) for item in [*range(1, 30), 5]), return_exceptions=True)

    results = asyncio.run(run())
    assert isinstance(results[12], DataError)  # 13
    assert isinstance(results[29], IntegrityError)  # 5 for the second time
    assert [result for result in results[:29] if not isinstance(result, BaseException)] == [item * 2 for item in range(1, 30) if item != 13]
    assert rows() == [item for item in range(1, 30) if item != 13]


def test_a_function_that_answers_for_fewer_items_commits_nothing_and_hangs_nobody(table: None) -> None:
    async def run() -> None:
        group: GroupCommit[int, int] = GroupCommit(lambda items: insert(items)[:-1])
        async with asyncio.timeout(60):
            with pytest.raises(ValueError, match="results came out"):
                await group.submit(1)

    asyncio.run(run())
    assert rows() == []


def test_one_who_stops_waiting_leaves_the_others_unharmed(table: None) -> None:
    async def run() -> None:
        group: GroupCommit[int, int] = GroupCommit(insert, parallel=1)
        tasks = [group.submit(item) for item in range(1, 11)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[3], asyncio.CancelledError)
        assert results[:3] + results[4:] == [item * 2 for item in range(1, 11) if item != 4]

    asyncio.run(run())
    assert rows() == list(range(1, 11))  # what was asked for before is stored


def test_a_burst_rolls_back_when_it_fails(table: None) -> None:
    def fail() -> None:
        insert([1])
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(run_burst(fail))
    assert rows() == []


def test_no_transaction_stays_open_after_bursts(table: None) -> None:
    async def run() -> None:
        group: GroupCommit[int, int] = GroupCommit(insert)
        await asyncio.gather(*(group.submit(item) for item in range(20, 120)), *(run_burst(rows) for _ in range(50)))

    asyncio.run(run())
    open_ones = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%%'"
    eventually(lambda: not rows(open_ones), what="no connection idle in a transaction")


def test_bursts_survive_that_every_connection_of_the_pool_dies(table: None) -> None:
    """As after a restart of PostgreSQL: the sessions are gone, the server is there."""

    def own_pid() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), pg_sleep(0.05)")
            return int(cursor.fetchone()[0])

    async def run() -> None:
        for round_number in range(3):
            pids = {*await asyncio.gather(*(run_burst(own_pid) for _ in range(8)))}
            assert len(pids) > 1  # the pool has grown
            with psycopg.connect(**_parameters()) as other:
                for pid in pids:
                    other.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])
            group: GroupCommit[int, int] = GroupCommit(insert)
            items = [1000 + 10 * round_number + item for item in range(5)]
            results = await asyncio.gather(*(run_burst(own_pid) for _ in range(8)), *(group.submit(item) for item in items))
            assert pids.isdisjoint(results[:8])
            assert results[8:] == [item * 2 for item in items]

    asyncio.run(run())
    assert len(rows()) == 15


def test_a_database_that_is_away_is_an_operational_error(table: None) -> None:
    attempts: list[int] = []

    def fail(items: Sequence[int]) -> list[int]:
        attempts.append(len(items))
        raise OperationalError("the database is away")

    async def run() -> None:
        group: GroupCommit[int, int] = GroupCommit(fail)
        for outcome in await asyncio.gather(*(group.submit(item) for item in range(20)), return_exceptions=True):
            assert isinstance(outcome, OperationalError)

    asyncio.run(run())
    assert len(attempts) <= 8  # each batch is tried twice, and never item by item


def test_a_database_that_hangs_is_given_up(table: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(3)")

    monkeypatch.setattr(bursts, "DEADLINE_S", 0.3)
    with pytest.raises(OperationalError, match="did not answer within"):
        asyncio.run(run_burst(hang))


def test_a_commit_of_unknown_outcome_is_an_outage_and_not_a_fault_of_the_caller(table: None) -> None:
    tries = []

    def lose_the_word_of_a_commit() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise OperationalError("server closed the connection unexpectedly")
        raise IntegrityError("duplicate key value violates unique constraint")

    with pytest.raises(OperationalError, match="while a transaction was being committed"):
        asyncio.run(run_burst(lose_the_word_of_a_commit))
