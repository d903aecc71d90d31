"""What a turn's calls of models cost: each is in the ledger before it is made, and its worst case is promised by every budget."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from uuid_utils.compat import uuid7

from agents.chat.bursts import Step, stepping
from agents.chat.refusals import error_of
from agents.providers.base import UpstreamFailed, Usage
from agents.versions.live import Answering, ModelChoice
from memory.api import FinishedTurn, TurnState
from observability.api import FREE, AttemptOutcome, Budget, NewAttempt, Polled, Price, Refusal, SettledAttempt, active_budgets, find_price

_OUTCOMES: Final = {
    TurnState.DONE: AttemptOutcome.DONE,
    TurnState.CANCELLED: AttemptOutcome.CANCELLED,
    TurnState.INTERRUPTED: AttemptOutcome.INTERRUPTED,
    TurnState.FAILED: AttemptOutcome.FAILED,
}
budgets_now: Final[Polled[list[Budget]]] = Polled(active_budgets, fresh_for_s=1.0)
"""The budgets that hold, as this process last read them."""

# A budget that is only promised, not spent, may have room again within moments.
_BUDGET_WAIT_S: Final = 2.0
_BUDGET_LOOK_AGAIN_S: Final = 0.1


class Meter:
    """The attempts of one turn. A `agents.providers.base.Meter`.

    `template` is what they have in common: whose they are, and the most that each may use.
    """

    def __init__(self, template: NewAttempt, *, budgets: Sequence[Budget], opened: bool) -> None:
        self._template = template
        self._budgets = budgets
        self._waiting = template if opened else None
        self._running: NewAttempt | None = None
        self._settled: list[SettledAttempt] = []
        self._number = template.number if opened else template.number - 1
        self._began_at = 0.0

    async def begin(self, choice: ModelChoice) -> None:
        """Note that `choice` is about to be called.

        Raises:
            BudgetSpent, BudgetBusy, PriceUnknown: a budget refuses it.
        """
        first, self._waiting = self._waiting, None
        if first is not None and (first.provider, first.model) == (choice.provider.slug, choice.model):
            self._running = first
        else:
            if first is not None:
                self._settled.append(SettledAttempt(id=first.id, outcome=AttemptOutcome.CANCELLED))
            self._number += 1
            attempt = replace(
                self._template,
                id=uuid7(),
                number=self._number,
                provider=choice.provider.slug,
                model=choice.model,
                price=await price_of(choice),
                started_at=datetime.now(UTC),
            )
            settled, self._settled = self._settled, []
            await self.promise(Step(settled=settled, attempt=attempt, budgets=self._budgets))
            self._running = attempt
        self._began_at = asyncio.get_running_loop().time()

    async def promise(self, step: Step) -> None:
        """Have `step` written, waiting a moment where a budget is only promised to others.

        Raises:
            BudgetSpent, BudgetBusy, PriceUnknown: a budget refuses it.
        """
        refusal = await stepping.submit(step)
        await wait_for_room(refusal, replace(step, settled=()))

    def failed(self, error: UpstreamFailed) -> None:
        """Note that the call did not lead to an answer."""
        self._end(AttemptOutcome.FAILED, error_code=error.code)

    def left(self) -> None:
        """Note that nobody waits for the call any more."""
        self._end(AttemptOutcome.CANCELLED)

    def _end(self, outcome: AttemptOutcome, *, error_code: str = "") -> None:
        if running := self._running:
            self._running = None
            self._settled.append(
                SettledAttempt(
                    id=running.id,
                    outcome=outcome,
                    error_code=error_code,
                    provider=running.provider,
                    model=running.model,
                    price=running.price,
                    latency_ms=self._latency_ms(),
                )
            )

    def settle(self, finished: FinishedTurn, *, cached_tokens: int) -> tuple[SettledAttempt, ...]:
        """Return how all attempts of a turn ended, the last one as the turn did; may be asked again."""
        used = Usage(finished.prompt_tokens or 0, finished.completion_tokens or 0, cached_tokens)
        return self.settle_as(
            _OUTCOMES[finished.state],
            usage=used,
            error_code=finished.error_code,
            is_estimated=finished.usage_estimated,
            first_token_ms=finished.first_token_ms,
        )

    def settle_as(
        self,
        outcome: AttemptOutcome,
        *,
        usage: Usage | None,
        error_code: str = "",
        is_estimated: bool = False,
        first_token_ms: int | None = None,
    ) -> tuple[SettledAttempt, ...]:
        """Return how all attempts ended, the last one with `outcome`; one that was never made has used nothing."""
        running = self._running or self._waiting
        if running is None:
            return tuple(self._settled)
        used = usage if self._running is not None else None
        last = SettledAttempt(
            id=running.id,
            outcome=outcome,
            error_code=error_code,
            provider=running.provider,
            model=running.model,
            price=running.price,
            prompt_tokens=used.prompt_tokens if used else None,
            cached_tokens=used.cached_tokens if used else None,
            completion_tokens=used.completion_tokens if used else None,
            is_estimated=is_estimated,
            first_token_ms=first_token_ms,
            latency_ms=self._latency_ms() if self._running else 0,
        )
        return (*self._settled, last)

    def _latency_ms(self) -> int:
        return round((asyncio.get_running_loop().time() - self._began_at) * 1000)


async def wait_for_room(refusal: Refusal | None, step: Step) -> None:
    """Try `step` again for a moment where it was refused only because others may spend what is left.

    Raises:
        BudgetSpent, BudgetBusy, PriceUnknown: it stays refused.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _BUDGET_WAIT_S
    while refusal is not None:
        if refusal.is_spent or loop.time() >= until:
            raise error_of(refusal)
        await asyncio.sleep(_BUDGET_LOOK_AGAIN_S)
        refusal = await stepping.submit(step)


async def price_of(choice: ModelChoice) -> Price | None:
    """Return what a model costs; None: unknown."""
    return FREE if choice.provider.is_demo else await find_price(choice.provider.slug, choice.model)


async def first_choice(answering: Answering) -> tuple[ModelChoice, Price | None]:
    """Return the first model of the chain, and its price."""
    choice = answering.choices[0]
    return choice, await price_of(choice)
