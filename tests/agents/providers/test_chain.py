"""Retries and fallbacks, against real upstreams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from pytest_django import Settings

from agents.providers.base import ModelRequest, NoModel, UpstreamFailed, UpstreamTimedOut
from agents.providers.chain import model_for
from agents.providers.wire import _endpoint, _transport
from agents.versions.live import ModelChoice, ProviderSnapshot
from tests.meters import NotingMeter
from tests.upstream import Refusal, Reply, Silence, Upstream

TIMEOUTS = {"connect_timeout_s": 30.0, "first_token_timeout_s": 30.0, "between_tokens_timeout_s": 30.0, "total_timeout_s": 60.0}
"""None is met by a machine that is only slow; tests shorten the one that they are about."""


@pytest.fixture(autouse=True)
def _fresh_client(settings: Settings) -> Iterator[None]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    for cached in (_endpoint, _transport, model_for):
        cached.cache_clear()
    yield
    for cached in (_endpoint, _transport, model_for):
        cached.cache_clear()


def choice(upstream: Upstream, model: str = "first", **fields: Any) -> ModelChoice:
    known = {"slug": model, "base_url": upstream.base_url, "key_variable": "", "encrypted_key": "", "is_demo": False, **TIMEOUTS}
    return ModelChoice(ProviderSnapshot(**{**known, **fields}), model)


def ask(*choices: ModelChoice, within_s: float = 60.0) -> tuple[str, str]:
    """Return the text and the model that wrote it."""

    async def run() -> tuple[str, str]:
        request = ModelRequest(
            messages=[{"role": "user", "content": "Hello"}],
            temperature=None,
            top_p=None,
            max_output_tokens=50,
            stream=True,
            deadline=asyncio.get_running_loop().time() + within_s,
            meter=NotingMeter(),
        )
        try:
            answer = await model_for(choices).start(request)
            return "".join([text async for text in answer]), answer.model
        finally:
            await _transport().aclose()

    return asyncio.run(run())


def test_what_may_pass_is_asked_again_up_to_three_times(upstream: Upstream) -> None:
    upstream.script(Refusal(500), Refusal(503), Reply("third time"))
    assert ask(choice(upstream)) == ("third time", "first")
    gaps = [later.started_at - earlier.started_at for earlier, later in pairwise(upstream.calls)]
    assert gaps[0] >= 0.2
    assert gaps[1] >= 0.4  # growing


def test_after_three_tries_the_next_model_answers(upstream: Upstream, open_upstream: Callable[[], Upstream]) -> None:
    upstream.script(Refusal(500))
    spare = open_upstream()
    assert ask(choice(upstream), choice(spare, "spare")) == ("Hello from the upstream.", "spare")
    assert (len(upstream.calls), len(spare.calls)) == (3, 1)


@pytest.mark.parametrize("refusal", [Refusal(400), Refusal(401), Refusal(404), Refusal(429, retry_after_s=60)], ids=str)
def test_what_will_not_pass_goes_to_the_next_model_at_once(
    upstream: Upstream, open_upstream: Callable[[], Upstream], refusal: Refusal
) -> None:
    upstream.script(refusal)
    assert ask(choice(upstream), choice(open_upstream(), "spare"))[1] == "spare"
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.7])
def test_retry_after_is_honoured(upstream: Upstream, seconds: float) -> None:
    gaps: list[float] = []
    while not gaps or (min(gaps) >= seconds + 0.2 and len(gaps) < 8):  # our own wait is no shorter than 0.2 s
        upstream.script(Refusal(429, retry_after_s=seconds), Reply("after a pause"))
        assert ask(choice(upstream))[0] == "after a pause"
        refused, answered = upstream.calls[-2:]
        gaps.append(answered.started_at - refused.started_at)
    assert seconds <= min(gaps) < seconds + 0.2


def test_a_model_that_says_nothing_is_left_for_the_next(upstream: Upstream, open_upstream: Callable[[], Upstream]) -> None:
    upstream.script(Silence())
    assert ask(choice(upstream, first_token_timeout_s=4), choice(open_upstream(), "spare"))[1] == "spare"
    assert len(upstream.calls) == 1
    upstream.wait_for_disconnect()


def test_nothing_is_retried_after_the_first_words(upstream: Upstream, open_upstream: Callable[[], Upstream]) -> None:
    upstream.script(Reply("one two three", cut_after_chunks=2))
    spare = open_upstream()
    with pytest.raises(UpstreamFailed):
        ask(choice(upstream), choice(spare, "spare"))
    assert (len(upstream.calls), len(spare.calls)) == (1, 0)


def test_when_all_fail_the_last_error_is_raised(upstream: Upstream, open_upstream: Callable[[], Upstream]) -> None:
    upstream.script(Refusal(400))
    spare = open_upstream()
    spare.script(Silence())
    with pytest.raises(UpstreamTimedOut):
        ask(choice(upstream), choice(spare, "spare", first_token_timeout_s=0.3))


def test_no_model_is_asked_beyond_the_deadline(upstream: Upstream, open_upstream: Callable[[], Upstream]) -> None:
    upstream.script(Silence())
    spare = open_upstream()
    started = time.monotonic()
    with pytest.raises(UpstreamTimedOut):
        ask(choice(upstream), choice(spare, "spare"), within_s=0.4)
    assert time.monotonic() - started < 20
    assert spare.calls == []


def test_an_agent_without_a_model_says_so() -> None:
    with pytest.raises(NoModel):
        ask()


def test_cancelling_between_tries_ends_them(upstream: Upstream) -> None:
    upstream.script(Refusal(429, retry_after_s=4))

    async def run() -> None:
        request = ModelRequest(
            messages=[],
            temperature=None,
            top_p=None,
            max_output_tokens=5,
            stream=True,
            deadline=asyncio.get_running_loop().time() + 60,
            meter=NotingMeter(),
        )
        task = asyncio.create_task(model_for((choice(upstream),)).start(request))
        await asyncio.to_thread(upstream.wait_for_calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 3)
        await _transport().aclose()

    asyncio.run(run())
    assert len(upstream.calls) == 1
