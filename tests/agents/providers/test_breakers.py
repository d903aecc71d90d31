"""Circuit breakers, against real upstreams: hammering stops, and calls begin again by themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pytest_django import Settings

from agents.providers import breakers
from agents.providers.base import ModelRequest, UpstreamFailed, UpstreamTimedOut
from agents.providers.breakers import Breaker, State, UpstreamPaused, breaker_of
from agents.providers.chain import model_for
from agents.providers.wire import _endpoint, _transport
from agents.versions.live import ModelChoice, ProviderSnapshot
from observability.api import run_burst
from observability.models import Breaker as BreakerRow
from tests.meters import NotingMeter
from tests.upstream import Gate, Refusal, Reply, Silence, Upstream

pytestmark = pytest.mark.usefixtures("live_db")
WAIT_S = 30.0


@pytest.fixture(autouse=True)
def _quick(settings: Settings) -> Iterator[None]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    settings.BREAKER_FAILURES, settings.BREAKER_WAIT_S = 4, WAIT_S
    for cached in (_endpoint, _transport, model_for):
        cached.cache_clear()
    yield
    for cached in (_endpoint, _transport, model_for):
        cached.cache_clear()


def choice(upstream: Upstream, **timeouts: float) -> ModelChoice:
    known = {"connect_timeout_s": 30.0, "first_token_timeout_s": 30.0, "between_tokens_timeout_s": 30.0, "total_timeout_s": 60.0}
    slug = f"p{upstream.base_url.rsplit('/', 2)[-2][-30:]}"
    provider = ProviderSnapshot(
        slug=slug, base_url=upstream.base_url, key_variable="", encrypted_key="", is_demo=False, **{**known, **timeouts}
    )
    return ModelChoice(provider, "some-model")


async def ask(*choices: ModelChoice, meter: NotingMeter | None = None, within_s: float = 60.0) -> str:
    request = ModelRequest(
        messages=[{"role": "user", "content": "Hello"}],
        temperature=None,
        top_p=None,
        max_output_tokens=50,
        stream=True,
        deadline=asyncio.get_running_loop().time() + within_s,
        meter=meter or NotingMeter(),
    )
    answer = await model_for(choices).start(request)
    try:
        return "".join([text async for text in answer])
    finally:
        await answer.aclose()


def wait_is_over(it: ModelChoice) -> None:
    breaker_of(it)._next_at = 0.0


async def failing(*choices: ModelChoice, times: int = 1, **options: Any) -> list[UpstreamFailed]:
    failures = []
    for _ in range(times):
        with pytest.raises(UpstreamFailed) as caught:
            await ask(*choices, **options)
        failures.append(caught.value)
    return failures


def shown(it: ModelChoice) -> float | None:
    return REGISTRY.get_sample_value("chatbot_breaker_state", {"provider": it.provider.slug, "model": it.model})


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def clean() -> None:
        try:
            await work()
        finally:
            await _transport().aclose()

    asyncio.run(clean())


async def until(said: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := await run_burst(said)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return found


def test_a_model_that_fails_in_a_row_is_left_alone_and_the_next_one_answers_at_once(
    upstream: Upstream, open_upstream: Callable[[], Upstream]
) -> None:
    upstream.script(Refusal(500))
    first, spare = choice(upstream), choice(open_upstream())

    async def work() -> None:
        await failing(first, times=2)  # three tries, then one more
        assert len(upstream.calls) == 4
        meter = NotingMeter()
        started = time.monotonic()
        assert await ask(first, spare, meter=meter) == "Hello from the upstream."
        assert time.monotonic() - started < WAIT_S / 2
        assert meter.failures == ["some-model: upstream-paused"]
        assert meter.begun == ["some-model"]  # the spare's
        [paused] = await failing(first)
        assert (paused.code, paused.status) == ("upstream-paused", 503)
        assert WAIT_S - 20 < (paused.retry_after_s or 0) <= WAIT_S
        assert len(upstream.calls) == 4

    run(work)


def test_after_a_while_one_call_tries_it_and_if_it_answers_all_do(upstream: Upstream) -> None:
    gate = Gate()
    upstream.script(*[Refusal(503)] * 4, Reply("Back", gate=gate), Reply("Back"))
    it = choice(upstream)

    async def work() -> None:
        await failing(it, times=2)
        assert breaker_of(it).state is State.OPEN
        wait_is_over(it)
        trying = asyncio.create_task(ask(it))
        await until(lambda: len(upstream.calls) == 5)
        assert breaker_of(it).state is State.TRYING
        assert {failure.code for failure in await failing(it, times=5)} == {"upstream-paused"}
        gate.open()
        assert await trying == "Back"
        assert breaker_of(it).state is State.CLOSED
        assert await asyncio.gather(*(ask(it) for _ in range(5))) == ["Back"] * 5
        assert len(upstream.calls) == 10

    run(work)


def test_it_tries_again_by_itself_and_not_earlier(upstream: Upstream, settings: Settings) -> None:
    settings.BREAKER_WAIT_S = 0.3
    upstream.script(*[Refusal(503)] * 4, Reply("Back"))
    it = choice(upstream)

    async def work() -> None:
        await failing(it, times=2)
        while True:
            try:
                assert await ask(it) == "Back"
                break
            except UpstreamPaused:
                await asyncio.sleep(0.02)
        assert upstream.calls[4].started_at - upstream.calls[3].started_at >= 0.3

    run(work)


def test_it_is_shown_as_to_be_tried_once_its_wait_is_over_though_nobody_calls(upstream: Upstream, settings: Settings) -> None:
    settings.BREAKER_WAIT_S = 1.0
    upstream.script(Refusal(503))
    it = choice(upstream)

    async def work() -> None:
        await failing(it, times=2)
        assert shown(it) == State.OPEN
        await until(lambda: shown(it) == State.TRYING)
        assert breaker_of(it).state is State.OPEN, "a call has yet to try it"
        wait_is_over(it)
        await failing(it)
        assert shown(it) == State.OPEN

    run(work)


def test_it_is_shown_as_called_again_once_nobody_has_asked_for_long(
    upstream: Upstream, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BREAKER_WAIT_S = 1.0
    monkeypatch.setattr(breakers, "BREAKER_FORGOTTEN_AFTER", timedelta(seconds=0.1))
    upstream.script(Refusal(503))
    it = choice(upstream)

    async def work() -> None:
        await failing(it, times=2)
        assert shown(it) == State.OPEN
        await until(lambda: shown(it) == State.CLOSED)
        assert breaker_of(it).state is State.OPEN, "the next call tries it"

    run(work)


def test_a_breaker_that_was_replaced_is_shown_no_more(upstream: Upstream) -> None:
    it, changed = choice(upstream), choice(upstream, total_timeout_s=9)

    async def work() -> None:
        old = breaker_of(it)
        for _ in range(4):
            old.heard(UpstreamFailed("down", retryable=True), passed_at=old.pass_call())
        assert shown(it) == State.OPEN
        breaker_of(changed)
        assert shown(it) == State.CLOSED
        assert old._timer is not None
        assert old._timer.cancelled()
        for _ in range(4):
            old.heard(UpstreamFailed("down", retryable=True), passed_at=old.pass_call())
        assert shown(it) == State.CLOSED

    run(work)


def test_a_try_that_fails_keeps_it_open(upstream: Upstream) -> None:
    upstream.script(Refusal(500))
    it = choice(upstream)

    async def work() -> None:
        await failing(it, times=2)
        wait_is_over(it)
        await failing(it, times=3)
        assert len(upstream.calls) == 5  # one try, not retried
        assert breaker_of(it).state is State.OPEN

    run(work)


def test_a_long_answer_that_has_begun_keeps_nobody_from_trying_too(upstream: Upstream) -> None:
    gate = Gate()
    upstream.script(*[Refusal(500)] * 4, Reply(chunks=["Back", " again"], gate=gate, gate_before_chunk=2), Reply("Quick"))
    it = choice(upstream)

    async def work() -> None:
        await failing(it, times=2)
        wait_is_over(it)
        trying = asyncio.create_task(ask(it))
        await until(lambda: breaker_of(it)._next_at == 0.0 and breaker_of(it).state is State.TRYING)
        assert await ask(it) == "Quick"
        assert breaker_of(it).state is State.CLOSED
        gate.open()
        assert await trying == "Back again"

    run(work)


def test_a_try_whose_client_left_keeps_nobody_from_trying_later(upstream: Upstream) -> None:
    upstream.script(*[Refusal(500)] * 4, Silence(), Reply("Back"))
    it = choice(upstream)

    async def work() -> None:
        await failing(it, times=2)
        wait_is_over(it)
        trying = asyncio.create_task(ask(it))
        await until(lambda: len(upstream.calls) == 5)
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
        wait_is_over(it)
        assert await ask(it) == "Back"

    run(work)


def test_answers_that_break_off_midway_count(upstream: Upstream) -> None:
    upstream.script(Reply("one two three", cut_after_chunks=2))
    it = choice(upstream)

    async def work() -> None:
        failures = await failing(it, times=5)
        assert [failure.code for failure in failures] == ["upstream-failed"] * 4 + ["upstream-paused"]
        assert len(upstream.calls) == 4

    run(work)


def test_timeouts_count_but_not_of_who_was_in_a_hurry(upstream: Upstream) -> None:
    upstream.script(Silence())
    hurried, slow = choice(upstream), choice(upstream, first_token_timeout_s=0.1)

    async def work() -> None:
        for failure in await failing(hurried, times=6, within_s=0.05):
            assert isinstance(failure, UpstreamTimedOut)
        assert breaker_of(hurried).state is State.CLOSED
        assert [failure.code for failure in await failing(slow, times=5)] == ["upstream-timed-out"] * 4 + ["upstream-paused"]

    run(work)


@pytest.mark.parametrize("refusal", [Refusal(400), Refusal(401), Refusal(404), Refusal(429, retry_after_s=60)], ids=str)
def test_what_is_not_the_providers_fault_does_not_count(upstream: Upstream, refusal: Refusal) -> None:
    upstream.script(refusal)

    async def work() -> None:
        await failing(choice(upstream), times=6)
        assert len(upstream.calls) == 6

    run(work)


def test_an_answer_in_between_begins_the_count_anew(upstream: Upstream) -> None:
    upstream.script(*[Refusal(500)] * 3, Reply("Fine"), *[Refusal(500)] * 3, Reply("Fine again"))
    it = choice(upstream)

    async def work() -> None:
        await failing(it)
        assert await ask(it) == "Fine"
        await failing(it)
        assert await ask(it) == "Fine again"

    run(work)


def test_it_waits_longer_where_the_provider_says_so_and_calls_from_before_say_nothing(upstream: Upstream, settings: Settings) -> None:
    async def work() -> None:
        breaker = Breaker(choice(upstream))
        early = breaker.pass_call()
        for _ in range(4):
            breaker.heard(UpstreamFailed("down", retryable=True, wait_s=90), passed_at=breaker.pass_call())
        breaker.heard(None, passed_at=early)
        with pytest.raises(UpstreamPaused) as caught:
            breaker.pass_call()
        assert 60 < (caught.value.retry_after_s or 0) <= 90

    run(work)


def test_it_can_be_switched_off(upstream: Upstream, settings: Settings) -> None:
    settings.BREAKER_FAILURES = 0
    upstream.script(Refusal(500))

    async def work() -> None:
        await failing(choice(upstream), times=4)
        assert len(upstream.calls) == 12

    run(work)


def test_opening_and_closing_are_written_down_and_a_changed_provider_begins_anew(upstream: Upstream) -> None:
    upstream.script(Refusal(500))
    it, changed = choice(upstream), choice(upstream, total_timeout_s=9)
    rows = BreakerRow.objects.filter(provider=it.provider.slug, model="some-model")

    async def work() -> None:
        await failing(it, times=2)
        row = await until(rows.first)
        assert (row.reason, row.closed_at) == ("4 failures in a row, the last: upstream-failed", None)
        assert breaker_of(changed).state is State.CLOSED
        await until(rows.exclude(closed_at=None).exists)

    run(work)
