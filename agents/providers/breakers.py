"""Circuit breakers: a model that failed too often in a row is left alone for a while, and then tried by one call at a time.

Each process has its own, one for each model of each provider: what it knows is what it saw, with no round trip to find out. Meanwhile
the agent's next model answers at once, or the caller is told when to come again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from enum import IntEnum
from time import monotonic
from typing import Final

import structlog
from django.conf import settings
from django.db import Error as DatabaseError

from agents.providers.base import ChatModel, ModelAnswer, ModelRequest, UpstreamFailed, Usage
from agents.versions.live import ModelChoice
from observability.api import BREAKER_FORGOTTEN_AFTER, breaker_closed, breaker_opened, run_burst, show_breaker
from observability.logs import in_words

log = structlog.get_logger(__name__)

_LONGEST_WAIT_S: Final = 300.0


class State(IntEnum):
    """Of a breaker, as `chatbot_breaker_state` shows it."""

    CLOSED = 0
    TRYING = 1
    OPEN = 2


class UpstreamPaused(UpstreamFailed):
    """The model failed so often that it is not called for now."""

    code = "upstream-paused"
    status = 503
    remedy = "The model behind this agent failed repeatedly and is left alone for a moment. Wait for the seconds that Retry-After names."

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"left alone for another {wait_s:.1f} s", retryable=False)
        self.retry_after_s = max(1, math.ceil(wait_s))


class Breaker:
    """Whether one model is called. Closed, every call passes; open, none does until `_next_at`, when one may try.

    A try is given as long as the wait is: one that is never heard of again (its client left) keeps nobody from trying later.
    """

    def __init__(self, choice: ModelChoice) -> None:
        self.choice = choice
        self.state = State.CLOSED
        self._failures = 0
        self._next_at = 0.0
        self._opened_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    def pass_call(self) -> float:
        """Let a call pass and return when that was, for `heard`.

        Raises:
            UpstreamPaused: the model is left alone.
        """
        now = monotonic()
        if self.state is State.CLOSED:
            return now
        if now < self._next_at:
            raise UpstreamPaused(self._next_at - now)
        self._next_at = now + settings.BREAKER_WAIT_S
        self.show(State.TRYING)
        return now

    def begun(self) -> None:
        """Note that a call brought its first words. Where it is a try, the next one may come: a long answer keeps nobody waiting."""
        if self.state is State.TRYING:
            self._next_at = 0.0

    def heard(self, failure: UpstreamFailed | None, *, passed_at: float) -> None:
        """Note how a call ended that passed at `passed_at`. One from before the breaker opened says nothing of now."""
        if passed_at < self._opened_at:
            return
        if failure is None:
            self._failures = 0
            if self.state is not State.CLOSED:
                self._opened_at = -math.inf
                self.show(State.CLOSED)
                log.info("breaker closed", provider=self.choice.provider.slug, model=self.choice.model)
                _tell(self)
        elif failure.is_fault:
            self._failures += 1
            if self.state is not State.CLOSED or 0 < settings.BREAKER_FAILURES <= self._failures:
                self._open(failure)

    def _open(self, failure: UpstreamFailed) -> None:
        self._opened_at = monotonic()
        self._next_at = self._opened_at + max(settings.BREAKER_WAIT_S, min(failure.wait_s or 0, _LONGEST_WAIT_S))
        self.show(State.OPEN)
        log.warning("breaker open", provider=self.choice.provider.slug, model=self.choice.model, failures=self._failures)
        _tell(self, reason=f"{self._failures:,} failures in a row, the last: {failure.code}")

    def retire(self) -> None:
        """Let a new one take its place: its last calls pass, and how they end says nothing of the other's."""
        self.state = State.CLOSED
        self._opened_at = math.inf
        self._stop_timer()

    def show(self, state: State) -> None:
        """Enter `state`, and have it seen."""
        self.state = state
        self._have_seen(state)

    def _have_seen(self, state: State) -> None:
        """Show `state`, and later what time alone makes of it: the next call may try the model, then nobody has asked for it for long."""
        show_breaker(provider=self.choice.provider.slug, model=self.choice.model, state=state)
        self._stop_timer()
        if state is State.OPEN:
            self._have_seen_later(State.TRYING, self._next_at - monotonic())
        elif state is State.TRYING:
            self._have_seen_later(State.CLOSED, BREAKER_FORGOTTEN_AFTER.total_seconds())

    def _have_seen_later(self, state: State, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._have_seen, state)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Guarded:
    """Calls a model only while its breaker lets it. A `ChatModel`."""

    def __init__(self, model: ChatModel, breaker: Breaker) -> None:
        self._model = model
        self._breaker = breaker

    async def start(self, request: ModelRequest) -> ModelAnswer:
        try:
            passed_at = self._breaker.pass_call()
        except UpstreamPaused as paused:
            request.meter.skipped(self._breaker.choice, paused)
            raise
        try:
            answer = await self._model.start(request)
        except UpstreamFailed as error:
            self._breaker.heard(error, passed_at=passed_at)
            # What has just opened it is not waited for again: the next model answers at once.
            error.retryable &= self._breaker.state is State.CLOSED
            raise
        self._breaker.begun()
        return GuardedAnswer(answer, self._breaker, passed_at)


class GuardedAnswer:
    """An answer that tells its breaker, once closed, how it went: an answer that breaks midway is a failure too. A `ModelAnswer`."""

    __slots__ = ("_answer", "_breaker", "_passed_at", "model", "provider")

    def __init__(self, answer: ModelAnswer, breaker: Breaker, passed_at: float) -> None:
        self.provider = answer.provider
        self.model = answer.model
        self._answer = answer
        self._breaker: Breaker | None = breaker
        self._passed_at = passed_at

    @property
    def finish_reason(self) -> str:
        return self._answer.finish_reason

    @property
    def usage(self) -> Usage | None:
        return self._answer.usage

    @property
    def failure(self) -> UpstreamFailed | None:
        return self._answer.failure

    def __aiter__(self) -> AsyncIterator[str]:
        return aiter(self._answer)

    async def aclose(self) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.heard(self._answer.failure, passed_at=self._passed_at)
        await self._answer.aclose()


_breakers: Final[dict[tuple[str, str], Breaker]] = {}
_telling: Final[dict[tuple[str, str], asyncio.Task[None]]] = {}


def breaker_of(choice: ModelChoice) -> Breaker:
    """Return this process's breaker of a model; a new one where its provider has changed: that one never failed."""
    key = (choice.provider.slug, choice.model)
    known = _breakers.get(key)
    if known is not None and known.choice == choice:
        return known
    _breakers[key] = breaker = Breaker(choice)
    breaker.show(State.CLOSED)  # from the beginning, and where the one before it was open
    if known is not None:
        if known.state is not State.CLOSED:
            _tell(breaker)
        known.retire()
    return breaker


def _tell(breaker: Breaker, *, reason: str = "") -> None:
    """Write how a breaker stands for alerts and the admin, in the background: no turn waits for that."""
    key = (breaker.choice.provider.slug, breaker.choice.model)
    task = _telling[key] = asyncio.create_task(_write(breaker, reason, after=_telling.get(key)))
    task.add_done_callback(lambda done: _telling.pop(key) if _telling.get(key) is done else None)


async def _write(breaker: Breaker, reason: str, *, after: asyncio.Task[None] | None) -> None:
    provider, model = breaker.choice.provider.slug, breaker.choice.model
    if after is not None:
        await asyncio.wait({after})
    try:
        if breaker.state is State.CLOSED:
            await run_burst(breaker_closed, provider=provider, model=model)
        else:
            await run_burst(breaker_opened, provider=provider, model=model, reason=reason)
    except DatabaseError as error:
        log.warning("breaker's state not stored", provider=provider, model=model, reason=in_words(error))
