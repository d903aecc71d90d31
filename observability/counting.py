"""Counting what happens, for Prometheus: one function for each kind of event, called once it is certain.

They cost microseconds, take no lock for longer than that, and never fail a request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from observability import metrics
from observability.models import AttemptOutcome, SavedBy

if TYPE_CHECKING:  # the ledger counts, too
    from observability.ledger import SettledAttempt

REFUSED: Final = "refused"
# How a budget refuses, by the codes of docs/errors.md.
_OF_BUDGETS: Final = {"budget-spent": "budget_spent", "budget-busy": "budget_busy", "price-unknown": "price_unknown"}
# What is written after the first words of an answer shorter than this says little of the model's speed.
_TELLING_TOKENS: Final = 10


class CountedTurn(Protocol):
    """What is counted of a turn whose end is stored. Durations in milliseconds.

    Attributes:
        outcome: a turn's state, or "refused" where a rate limit did; what a budget refused is counted as that, too.
        error_code: of `docs/errors.md`, or "".
        refused_by: the scope of the rate limit that refused it, or "".
        looked_up: its reply could have been a kept one; `cached`: it was.
        attempts: the calls of models, in their order.
        saved_usd: thanks to `saved_by`.
    """

    @property
    def agent(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def streamed(self) -> bool: ...
    @property
    def latency_ms(self) -> int: ...
    @property
    def first_token_ms(self) -> int | None: ...
    @property
    def error_code(self) -> str: ...
    @property
    def refused_by(self) -> str: ...
    @property
    def looked_up(self) -> bool: ...
    @property
    def cached(self) -> bool: ...
    @property
    def attempts(self) -> Sequence[SettledAttempt]: ...
    @property
    def saved_usd(self) -> Decimal: ...
    @property
    def saved_by(self) -> SavedBy: ...


def count_turn(turn: CountedTurn) -> None:
    """Count a turn, with its calls of models, once its end is stored."""
    if turn.refused_by:
        count_refusal(f"rate_limit_{turn.refused_by}")
    elif turn.error_code in _OF_BUDGETS:
        count_refusal(_OF_BUDGETS[turn.error_code])
    is_refused = turn.outcome == REFUSED or turn.error_code in _OF_BUDGETS
    metrics.messages.of(turn.agent, REFUSED if is_refused else turn.outcome).inc()
    if is_refused and not turn.attempts:
        return
    metrics.request_duration.of(turn.agent, "stream" if turn.streamed else "whole").observe(turn.latency_ms / 1000)
    if turn.looked_up or turn.cached:
        count_lookups("reply", hits=int(turn.cached), misses=int(not turn.cached))
    if turn.saved_usd > 0:
        metrics.saved_usd.of(turn.agent, turn.saved_by.value).inc(float(turn.saved_usd))
    if turn.first_token_ms is not None and not turn.cached:
        metrics.time_to_first_token.of(turn.agent).observe(turn.first_token_ms / 1000)
    if turn.attempts:
        _count_attempts_of(turn)


def _count_attempts_of(turn: CountedTurn) -> None:
    before: SettledAttempt | None = None
    for attempt in turn.attempts:
        if not count_attempt(attempt, agent=turn.agent):
            continue
        if before is not None and (before.provider, before.model) == (attempt.provider, attempt.model):
            metrics.upstream_retries.of(attempt.provider).inc()
        elif before is not None:
            metrics.fallbacks.of(before.provider).inc()
        before = attempt
    if before is None or turn.first_token_ms is None or before.completion_tokens is None:
        return
    written_ms = turn.latency_ms - turn.first_token_ms
    if turn.streamed and written_ms > 0 and before.completion_tokens >= _TELLING_TOKENS:
        metrics.tokens_per_second.of(turn.agent).observe(before.completion_tokens * 1000 / written_ms)


def count_attempt(attempt: SettledAttempt, *, agent: str) -> bool:
    """Count a call of a model that is settled, and what it used; tell whether it was made at all."""
    if attempt.latency_ms is None:  # given back: promised, and never made
        return False
    metrics.upstream_attempts.of(attempt.provider, attempt.model, attempt.outcome.value).inc()
    _count_usage(
        agent=agent,
        model=attempt.model,
        prompt_tokens=attempt.prompt_tokens or 0,
        cached_tokens=attempt.cached_tokens or 0,
        completion_tokens=attempt.completion_tokens or 0,
        cost_usd=attempt.cost_usd,
    )
    return True


class Orphan(NamedTuple):
    """A call that its process left behind, as the most it may have used."""

    cost_usd: Decimal | None
    prompt_tokens: int
    completion_tokens: int
    agent: str
    provider: str
    model: str


def count_orphans(orphans: Iterable[Orphan]) -> None:
    """Count calls that were settled because their process is gone."""
    for it in orphans:
        metrics.upstream_attempts.of(it.provider, it.model, AttemptOutcome.ORPHANED.value).inc()
        _count_usage(
            agent=it.agent, model=it.model, prompt_tokens=it.prompt_tokens, completion_tokens=it.completion_tokens, cost_usd=it.cost_usd
        )


def _count_usage(
    *, agent: str, model: str, prompt_tokens: int, completion_tokens: int, cost_usd: Decimal | None, cached_tokens: int = 0
) -> None:
    """Count tokens, and what they cost. `cached_tokens`: of the prompt, what the provider had in its cache."""
    if prompt_tokens > cached_tokens:
        metrics.tokens.of(agent, model, "prompt").inc(prompt_tokens - cached_tokens)
    if cached_tokens:
        metrics.tokens.of(agent, model, "cached_prompt").inc(cached_tokens)
    if completion_tokens:
        metrics.tokens.of(agent, model, "completion").inc(completion_tokens)
    if cost_usd:
        metrics.cost_usd.of(agent, model).inc(float(cost_usd))


def count_lookups(cache: str, *, hits: int, misses: int) -> None:
    """Count look-ups in a cache, one of `metrics.CACHES`."""
    if hits:
        metrics.cache_requests.of(cache, "hit").inc(hits)
    if misses:
        metrics.cache_requests.of(cache, "miss").inc(misses)


def count_recall(result: str, *, seconds: float) -> None:
    """Count a recall, which ended in one of `metrics.RECALLS`."""
    metrics.recalls.of(result).inc()
    metrics.recall_duration.observe(seconds)


def count_refusal(reason: str) -> None:
    """Count a request that was refused, for one of `metrics.REFUSALS`."""
    metrics.refusals.of(reason.replace("-", "_")).inc()


def count_response(*, route: str, method: str, status: int) -> None:
    """Count an answered request. `route` is a pattern of the URL configuration, never what a caller made up."""
    metrics.http_responses.of(route or metrics.OTHER, method if method in _METHODS else metrics.OTHER, str(status)).inc()


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def count_job_failure(queue: str) -> None:
    """Count a round of work in the background that failed."""
    metrics.job_failures.of(queue).inc()


def count_alert(*, target_kind: str, result: str) -> None:
    """Count a notice that was sent, or was not taken: `result` is "sent" or "failed"."""
    metrics.alerts_sent.of(target_kind, result).inc()


def show_breaker(*, provider: str, model: str, state: int) -> None:
    """Show whether this process leaves a model alone: 0 no, 1 it may be tried, 2 yes."""
    metrics.breaker_state.of(provider, model).set(state)


@asynccontextmanager
async def open_stream() -> AsyncIterator[None]:
    """Count a stream as open for the length of the block."""
    metrics.open_streams.inc()
    try:
        yield
    finally:
        metrics.open_streams.dec()
