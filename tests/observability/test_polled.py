"""Polled settings: read by one at a time, no older than promised, and held on to while the database is away."""

from __future__ import annotations

import asyncio

import pytest
from django.db import OperationalError

from observability.polled import Polled

pytestmark = pytest.mark.django_db(transaction=True)


class Source:
    """What is read: a number that grows with every read."""

    def __init__(self):
        self.reads = 0
        self.is_away = False

    def __call__(self):
        self.reads += 1
        if self.is_away:
            raise OperationalError("away")
        return self.reads


@pytest.fixture
def source():
    return Source()


def test_many_who_ask_at_once_are_one_read(source):
    polled = Polled(source, fresh_for_s=60)

    async def run():
        return await asyncio.gather(*(polled.get() for _ in range(20)))

    assert asyncio.run(run()) == [1] * 20
    assert asyncio.run(run()) == [1] * 20  # in another loop, too


def test_what_is_too_old_is_read_again(source):
    polled = Polled(source, fresh_for_s=0)

    async def run():
        return [await polled.get() for _ in range(3)]

    assert asyncio.run(run()) == [1, 2, 3]


def test_forgetting_counts_even_while_it_is_read(source):
    polled = Polled(source, fresh_for_s=60)

    async def run():
        reading = asyncio.create_task(polled.get())
        await asyncio.sleep(0)
        polled.forget()
        return await reading, await polled.get(), await polled.get()

    assert asyncio.run(run()) == (1, 2, 2)


def test_one_who_leaves_takes_nothing_from_the_others(source):
    polled = Polled(source, fresh_for_s=0)

    async def run():
        leaving, staying = asyncio.create_task(polled.get()), asyncio.create_task(polled.get())
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying, await polled.get()

    assert asyncio.run(run()) == (1, 2)


def test_while_the_database_is_away_the_last_value_holds(source):
    polled = Polled(source, fresh_for_s=0)

    async def run():
        first = await polled.get()
        source.is_away = True
        return first, await polled.get()

    assert asyncio.run(run()) == (1, 1)


def test_without_a_last_value_the_database_is_missed(source):
    source.is_away = True
    with pytest.raises(OperationalError):
        asyncio.run(Polled(source, fresh_for_s=60).get())
