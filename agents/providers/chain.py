"""Retries and fallbacks: models made of models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import stamina
import stamina.instrumentation
import structlog

from agents.providers.base import ChatModel, ModelAnswer, ModelRequest, NoModel, UpstreamFailed
from agents.providers.breakers import Guarded, breaker_of
from agents.providers.traced import Traced
from agents.providers.wire import OpenAIWire
from agents.versions.live import ModelChoice
from observability.tracing import is_tracing

log = structlog.get_logger(__name__)

# Its own line in the log would repeat what a provider said, and what is called again is counted as all calls are.
stamina.instrumentation.set_on_retry_hooks(())

_ATTEMPTS: Final = 3
_LONGEST_WAIT_S: Final = 5.0


class Retrying:
    """Asks again after errors that may pass: up to three times, with growing, jittered waits or the provider's own Retry-After."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    async def start(self, request: ModelRequest) -> ModelAnswer:
        loop = asyncio.get_running_loop()

        def wait_before_retry(error: Exception) -> bool | float:
            if not isinstance(error, UpstreamFailed) or not error.retryable:
                return False
            if error.wait_s is None:
                return loop.time() < request.deadline
            return error.wait_s if error.wait_s <= min(_LONGEST_WAIT_S, request.deadline - loop.time()) else False

        async for attempt in stamina.retry_context(
            on=wait_before_retry, attempts=_ATTEMPTS, timeout=None, wait_initial=0.2, wait_max=2.0, wait_jitter=0.2
        ):
            with attempt:
                return await self._model.start(request)
        raise AssertionError("stamina either returns or raises")


class Metered:
    """Tells the request's meter of every call, before it is made and when it fails."""

    def __init__(self, model: ChatModel, choice: ModelChoice) -> None:
        self._model = model
        self._choice = choice

    async def start(self, request: ModelRequest) -> ModelAnswer:
        await request.meter.begin(self._choice)
        try:
            return await self._model.start(request)
        except UpstreamFailed as error:
            request.meter.failed(error)
            raise
        except BaseException:
            request.meter.left()
            raise


class Fallback:
    """Asks the next model when one could not answer."""

    def __init__(self, models: Sequence[tuple[str, ChatModel]]) -> None:
        self._models = models

    async def start(self, request: ModelRequest) -> ModelAnswer:
        failure: UpstreamFailed | None = None
        for name, model in self._models:
            try:
                return await model.start(request)
            except UpstreamFailed as error:
                log.warning("model failed", model=name, reason=error.reason, error_code=error.code)
                failure = error
            if asyncio.get_running_loop().time() >= request.deadline:
                break
        raise failure or NoModel()


@lru_cache(maxsize=1000)
def model_for(choices: tuple[ModelChoice, ...]) -> ChatModel:
    """Return the model that answers with the first of `choices` that can."""
    return Fallback([(f"{choice.provider.slug}/{choice.model}", Retrying(_guarded(choice))) for choice in choices])


@lru_cache(maxsize=1000)
def asked_once(choice: ModelChoice) -> ChatModel:
    """Return the model `choice`, without retries: for what is worth a moment and no more."""
    return _guarded(choice)


def _guarded(choice: ModelChoice) -> ChatModel:
    wire = OpenAIWire(choice.provider, choice.model)
    return Guarded(Metered(Traced(wire, choice) if is_tracing() else wire, choice), breaker_of(choice))
