"""Checking a key costs no query while it is in use, guessing costs few, and changes are seen within five seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone
from django.utils.crypto import get_random_string

from agents.access import InvalidKey, caller_with, keyring
from agents.access.keyring import FRESH_FOR_S, USABLE_FOR_S, KeyRing, load_keys
from agents.models import ApiKey
from observability.api import run_burst
from tests.factories import make_agent, make_key


async def use_for(seconds: float, ring: KeyRing, secret: str) -> None:
    for _ in range(int(seconds * 10)):
        await ring.caller_with(secret)
        await asyncio.sleep(0.1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The keys that each query asked for."""
    reads: list[list[str]] = []

    def load_and_note(key_ids: Any) -> Any:
        reads.append(list(key_ids))
        return load_keys(key_ids)

    monkeypatch.setattr(keyring, "load_keys", load_and_note)
    return reads


@pytest.fixture
def _long_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known stays fresh even where a busy machine holds a test up."""
    monkeypatch.setattr(keyring, "FRESH_FOR_S", 60.0)
    monkeypatch.setattr(keyring, "USABLE_FOR_S", 60.0)


def run(test: Callable[[KeyRing], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test(KeyRing()))


async def until(said: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not said():  # noqa: ASYNC110 - another thread changes it
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("_long_fresh")
def test_a_key_in_use_costs_no_query(live_db: None, reads: list[list[str]]) -> None:
    agent = make_agent()
    issued = make_key(agent, scopes=("chat", "erase"))

    async def use(ring: KeyRing) -> None:
        caller = await ring.caller_with(issued.secret)
        assert (caller.owner, caller.key_id) == (f"owner:{issued.key.owner_id}", issued.key.prefix)
        assert (caller.scopes, caller.agents, caller.all_agents) == ({"chat", "erase"}, {agent.slug}, False)
        await until(lambda: len(reads) == 2)  # the second one beside the request, with the time of its use
        for _ in range(1000):
            assert await ring.caller_with(issued.secret) == caller
        assert len(reads) == 2

    run(use)


def test_many_keys_in_use_are_looked_at_again_by_one_query(live_db: None, reads: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "USABLE_FOR_S", 60.0)  # even where a busy machine holds this up
    agent = make_agent()
    keys = [make_key(agent) for _ in range(20)]

    async def use(ring: KeyRing) -> None:
        await asyncio.gather(*(ring.caller_with(key.secret) for key in keys))
        await until(lambda: ring._looking_again is not None and ring._looking_again.done())
        await asyncio.sleep(FRESH_FOR_S + 0.1)
        reads.clear()
        for key in keys:
            await ring.caller_with(key.secret)
        assert reads == []  # nobody waited for it
        await until(lambda: bool(reads))
        assert [sorted(asked) for asked in reads] == [sorted(key.key.prefix for key in keys)]

    run(use)


def test_whatever_changes_is_seen_within_five_seconds_by_a_key_in_use(live_db: None) -> None:
    agent = make_agent()
    issued = make_key()
    key = issued.key

    async def use(ring: KeyRing) -> None:
        async def seen(check: Callable[[Any], bool]) -> None:
            changed_at = time.monotonic()
            while not check(await ring.caller_with(issued.secret)):
                assert time.monotonic() - changed_at < 15  # five seconds, on a busy machine
                await asyncio.sleep(0.05)

        await ring.caller_with(issued.secret)
        await run_burst(key.agents.add, agent)
        await seen(lambda caller: caller.may_use(agent.slug))
        await run_burst(ApiKey.objects.filter(pk=key.pk).update, scopes=["usage"])
        await seen(lambda caller: caller.scopes == {"usage"})
        await run_burst(ApiKey.objects.filter(pk=key.pk).update, expiry_date=timezone.now() - timedelta(days=1))
        with pytest.raises(InvalidKey):
            await seen(lambda caller: False)

    run(use)


def test_a_key_that_nobody_looked_at_for_a_while_is_read_before_it_is_believed(live_db: None) -> None:
    issued = make_key()

    async def use(ring: KeyRing) -> None:
        await ring.caller_with(issued.secret)
        await asyncio.sleep(0.3)  # its use is written
        await run_burst(ApiKey.objects.filter(pk=issued.key.pk).update, revoked=True)
        await asyncio.sleep(USABLE_FOR_S)
        with pytest.raises(InvalidKey):
            await ring.caller_with(issued.secret)

    run(use)


@pytest.mark.usefixtures("_long_fresh")
def test_guessing_costs_few_queries(live_db: None, reads: list[list[str]]) -> None:
    guesses = [f"{get_random_string(8)}.{get_random_string(32)}" for _ in range(640)]

    async def guess(ring: KeyRing) -> None:
        for _ in range(2):
            results = await asyncio.gather(*(ring.caller_with(guess) for guess in guesses), return_exceptions=True)
            assert {type(result) for result in results} == {InvalidKey}
        assert len(reads) <= 11
        reads.clear()
        for nonsense in ("", ".", "a" * 41, "abcdefgh." + "\x00" * 32, "abcdefgh." + "é" * 32, "abcdefgh" * 10_000):
            with pytest.raises(InvalidKey):
                await ring.caller_with(nonsense)
        assert reads == []

    run(guess)


@pytest.mark.usefixtures("_long_fresh")
def test_the_right_id_with_a_wrong_secret_costs_no_query_either(live_db: None, reads: list[list[str]]) -> None:
    issued = make_key()

    async def guess(ring: KeyRing) -> None:
        await ring.caller_with(issued.secret)
        await until(lambda: len(reads) == 2)
        for _ in range(100):
            with pytest.raises(InvalidKey):
                await ring.caller_with(f"{issued.key.prefix}.{get_random_string(32)}")
        assert len(reads) == 2

    run(guess)


def test_what_is_remembered_is_bounded(live_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "_MOST_HELD", 10)
    keys = [make_key() for _ in range(15)]

    async def use(ring: KeyRing) -> None:
        for key in keys:
            await ring.caller_with(key.secret)
            with pytest.raises(InvalidKey):
                await ring.caller_with(f"{get_random_string(8)}.{get_random_string(32)}")
            assert len(ring._held) <= 10
            assert len(ring._absences) <= 10

    run(use)


def test_without_its_database_it_says_so_and_refuses_no_key(live_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = make_key()

    def break_down(key_ids: Any) -> Any:
        raise OperationalError("the database is away")

    async def use(ring: KeyRing) -> None:
        began_at = time.monotonic()
        await ring.caller_with(issued.secret)
        await asyncio.sleep(0.3)
        monkeypatch.setattr(keyring, "load_keys", break_down)
        started_at = time.monotonic()
        with pytest.raises(OperationalError):
            await use_for(20, ring, issued.secret)
        assert began_at + USABLE_FOR_S < time.monotonic() < started_at + USABLE_FOR_S + 10
        monkeypatch.setattr(keyring, "load_keys", load_keys)
        assert (await ring.caller_with(issued.secret)).key_id == issued.key.prefix

    run(use)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer a\x00b", "Bearer " + "x" * 65_536, "Bearer ut_" + "x" * 65_536, "Bearer '\"", "\ud800"]
)
def test_what_a_server_in_front_might_let_through_is_no_key(header: str) -> None:
    with pytest.raises(InvalidKey):
        asyncio.run(caller_with(header))
