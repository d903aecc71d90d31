"""What embedding costs: every call of a vendor's model is in the ledger before it is made, and settled with the usage it reports.

The built-in embedder runs on this host and costs nothing, so its calls are in no ledger. What comes from the cache is no call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx2
import structlog
from django.db import Error as DatabaseError
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from memory.embedders.configured import PROVIDER, EmbeddingModel
from memory.embedders.failures import EmbeddingFailed, EmbeddingRefused
from observability.api import (
    AttemptKind,
    AttemptOutcome,
    Budget,
    GroupCommit,
    NewAttempt,
    Price,
    Refusal,
    SettledAttempt,
    budgets_now,
    count_attempt,
    count_tokens,
    find_calibration,
    find_price,
    measured_calibration,
    most_tokens,
    promise_attempts,
    settle_attempts,
)
from observability.logs import in_words

log = structlog.get_logger(__name__)

# A call of a process that died is given up after this; none takes as long.
_GIVEN_UP_AFTER: Final = timedelta(minutes=5)
# Some tokenizers put a mark before and after each text.
_MARKS_A_TEXT: Final = 2
_MOST_TOKENS: Final = 2**31 - 1
_UNSENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """Whose a call is, as far as it is known: texts of several agents are embedded together."""

    agent: str = ""
    key: str = ""
    conversation_id: int = 0
    subject_id: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What models cost now, by name, and the budgets that hold: read before a visit to the database, for use in it."""

    prices: Mapping[str, Price | None]
    budgets: Sequence[Budget]


@dataclass(slots=True)
class _Account:
    payer: Payer
    promised: NewAttempt | Refusal | None = None
    waits: bool = True

    def take(self) -> NewAttempt | None:
        """Return the call that is in the ledger already, once; None: there is none.

        Raises:
            EmbeddingRefused: a budget refused it.
        """
        promised, self.promised = self.promised, None
        if isinstance(promised, Refusal):
            raise _refused(promised)
        return promised


@dataclass(slots=True)
class _Reported:
    prompt_tokens: int | None = None


_NOBODY: Final = _Account(Payer())
_account: ContextVar[_Account] = ContextVar("embedding_account")
_reported: ContextVar[_Reported] = ContextVar("reported_usage_of_embedding")
_settling_tasks: set[asyncio.Task[None]] = set()


async def terms_of(models: Sequence[EmbeddingModel]) -> Terms | None:
    """Return the terms on which `models` are called; None where none of them costs anything."""
    paid = [model for model in models if not model.is_builtin]
    if not paid:
        return None
    return Terms({model.name: await find_price(PROVIDER, model.name) for model in paid}, await budgets_now.get())


def promise(text: str, *, model: EmbeddingModel, payer: Payer, terms: Terms) -> NewAttempt | Refusal:
    """Write the call that embeds `text` to the ledger, or say which budget refuses it. Inside a transaction that the caller began.

    For whoever visits the database anyway before embedding: `charged_to` takes what it returns.
    """
    attempt = _attempt(model, payer=payer, price=terms.prices.get(model.name), worst_tokens=most_tokens(text) + _MARKS_A_TEXT)
    [refusal] = promise_attempts([attempt], budgets=terms.budgets)
    return refusal or attempt


@contextlib.contextmanager
def charged_to(payer: Payer, *, promised: NewAttempt | Refusal | None = None, waits: bool = True) -> Iterator[None]:
    """Note in the ledger whose the calls are that are made herein; `promised` is the first of them.

    Args:
        waits: whether a call's vectors come only once it is settled; who is in a hurry settles in the background.
    """
    account = _Account(payer, promised, waits)
    token = _account.set(account)
    try:
        yield
    finally:
        _account.reset(token)
        give_back(account.promised)  # it was in the cache, or nobody waits any more


def note_usage(prompt_tokens: object) -> None:
    """Tell what the vendor says that it counted in the call under way. What is no number of tokens is as good as nothing said."""
    reported = _reported.get(None)
    if reported and isinstance(prompt_tokens, int) and 0 < prompt_tokens <= _MOST_TOKENS:
        reported.prompt_tokens = prompt_tokens


@contextlib.asynccontextmanager
async def metered(texts: Sequence[str], *, model: EmbeddingModel) -> AsyncIterator[None]:
    """Account for the one call of `model` that is made herein, with `texts`.

    Raises:
        EmbeddingRefused: a budget refuses it.
        django.db.Error: it cannot be written down, and must not be made.
    """
    if model.is_builtin:
        yield
        return
    account = _account.get(_NOBODY)
    attempt = account.take() or await _open(texts, model, account.payer)
    reported = _Reported()
    token = _reported.set(reported)
    began_at = asyncio.get_running_loop().time()
    outcome, is_billable = AttemptOutcome.CANCELLED, True
    try:
        yield
        outcome = AttemptOutcome.DONE
    except EmbeddingFailed as error:
        outcome, is_billable = AttemptOutcome.FAILED, _may_be_billed(error)
        raise
    finally:
        _reported.reset(token)
        latency_ms = round((asyncio.get_running_loop().time() - began_at) * 1000)
        ended = SettledAttempt(id=attempt.id, outcome=outcome, price=attempt.price, latency_ms=latency_ms, **_named(attempt))
        task = _keep(_settle(ended, texts, model, agent=attempt.agent, reported=reported, is_billable=is_billable))
        if account.waits:
            await asyncio.shield(task)


async def finish_settling() -> None:
    """Wait until what is being settled in the background is."""
    await asyncio.gather(*_settling_tasks, return_exceptions=True)


async def _open(texts: Sequence[str], model: EmbeddingModel, payer: Payer) -> NewAttempt:
    calibration = await find_calibration(PROVIDER, model.name)
    counted = await asyncio.to_thread(_count, texts, model)
    price = await find_price(PROVIDER, model.name)
    attempt = _attempt(model, payer=payer, price=price, worst_tokens=calibration.most(counted) + _MARKS_A_TEXT * len(texts))
    await budgets_now.get()  # whoever waits with others is promised to these, or newer ones
    if refusal := await _opening.submit(attempt):
        raise _refused(refusal)
    return attempt


def _attempt(model: EmbeddingModel, *, payer: Payer, price: Price | None, worst_tokens: int) -> NewAttempt:
    now = datetime.now(UTC)
    return NewAttempt(
        id=uuid7(),
        kind=AttemptKind.EMBEDDING,
        agent=payer.agent,
        key=payer.key,
        conversation_id=payer.conversation_id,
        subject_id=payer.subject_id,
        provider=PROVIDER,
        model=model.name,
        price=price,
        started_at=now,
        deadline_at=now + _GIVEN_UP_AFTER,
        worst_prompt_tokens=worst_tokens,
        worst_completion_tokens=0,
    )


async def _settle(
    ended: SettledAttempt, texts: Sequence[str], model: EmbeddingModel, *, agent: str, reported: _Reported, is_billable: bool
) -> None:
    try:
        ended = await _with_usage(ended, texts, model, reported=reported, is_billable=is_billable)
        if await _settling.submit(ended):
            count_attempt(ended, agent=agent)
    except DatabaseError as error:
        log.warning("embedding not settled; it will be as one left behind", attempt=str(ended.id), reason=in_words(error))


async def _with_usage(
    ended: SettledAttempt, texts: Sequence[str], model: EmbeddingModel, *, reported: _Reported, is_billable: bool
) -> SettledAttempt:
    """Return `ended` with what the call used: the vendor's count, or our estimate of what it may bill without saying so."""
    told = reported.prompt_tokens
    calibration = await measured_calibration(PROVIDER, model.name)
    if told is not None:
        counted = await asyncio.to_thread(_count, texts, model) if calibration.wants(ended.id) else None
        return replace(ended, prompt_tokens=told, cached_tokens=0, completion_tokens=0, counted_prompt_tokens=counted)
    if not is_billable:
        return ended
    tokens = (await find_calibration(PROVIDER, model.name)).estimate(await asyncio.to_thread(_count, texts, model))
    return replace(ended, prompt_tokens=tokens, cached_tokens=0, completion_tokens=0, is_estimated=True)


def give_back(promised: NewAttempt | Refusal | None) -> None:
    """Settle a call that is not made after all, in the background."""
    if not isinstance(promised, NewAttempt):
        return
    ended = SettledAttempt(id=promised.id, outcome=AttemptOutcome.CANCELLED, **_named(promised))

    async def settle() -> None:
        with contextlib.suppress(DatabaseError):  # the reaper does it
            await _settling.submit(ended)

    _keep(settle())


def _keep(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    _settling_tasks.add(task)
    task.add_done_callback(_settling_tasks.discard)
    return task


def _named(attempt: NewAttempt) -> dict[str, Any]:
    return {"provider": attempt.provider, "model": attempt.model}


def _count(texts: Sequence[str], model: EmbeddingModel) -> int:
    return sum(count_tokens(text, model=model.name) for text in texts)


def _may_be_billed(error: EmbeddingFailed) -> bool:
    """Tell whether the vendor may have done the work: it neither refused it nor was out of reach."""
    cause = error.__cause__
    if cause is None:  # an answer that says no
        return False
    while cause is not None:
        if isinstance(cause, _UNSENT):
            return False
        cause = cause.__cause__
    return True


def _refused(refusal: Refusal) -> EmbeddingRefused:
    if refusal.unpriced:
        return EmbeddingRefused(f"the budget '{refusal.budget}' allows no model of unknown price")
    if not refusal.is_spent:
        return EmbeddingRefused(f"all that is left of the budget '{refusal.budget}' is promised to other calls")
    return EmbeddingRefused(f"the budget '{refusal.budget}' is spent; it resets at {refusal.resets_at.isoformat()}")


def _open_together(attempts: Sequence[NewAttempt]) -> list[Refusal | None]:
    return promise_attempts(attempts, budgets=budgets_now.latest())


_opening: Final[GroupCommit[NewAttempt, Refusal | None]] = GroupCommit(_open_together)
_settling: Final[GroupCommit[SettledAttempt, bool]] = GroupCommit(settle_attempts)
