"""What a turn's calls of models cost: each is in the ledger before it is made, and its worst case is promised by every budget."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from msgspec.structs import replace
from uuid_utils.compat import uuid7

from agents.chat.bursts import promising, settling
from agents.chat.prompt import count_prompt_tokens
from agents.chat.refusals import error_of
from agents.providers.base import Message, UpstreamFailed, Usage
from agents.versions.live import ModelChoice
from memory.api import FinishedTurn, TurnState
from observability.api import (
    FREE,
    AttemptOutcome,
    NewAttempt,
    Price,
    Refusal,
    SettledAttempt,
    budgets_now,
    count_tokens,
    find_calibration,
    find_price,
    measured_calibration,
)

_OUTCOMES: Final = {
    TurnState.DONE: AttemptOutcome.DONE,
    TurnState.CANCELLED: AttemptOutcome.CANCELLED,
    TurnState.INTERRUPTED: AttemptOutcome.INTERRUPTED,
    TurnState.FAILED: AttemptOutcome.FAILED,
}

# A budget that is only promised, not spent, may have room again within moments.
_BUDGET_WAIT_S: Final = 2.0
_BUDGET_LOOK_AGAIN_S: Final = 0.1


class Meter:
    """The attempts of one turn. A `agents.providers.base.Meter`.

    Args:
        template: what they have in common: whose they are, and the most that each may use.
        prompt_tokens: the most that a prompt may have, as we count.
        opened: `template` itself is in the ledger as the first attempt, and promised.
    """

    def __init__(self, template: NewAttempt, *, prompt_tokens: int, opened: bool) -> None:
        self.messages: Sequence[Message] = ()
        """What is sent: the estimate of what a call read that never told its usage."""
        self.body = b""
        """The same as it went out last, byte for byte."""
        self.begun: dict[UUID, float] = {}
        """When each attempt was called, on the event loop's clock."""
        self.passed_over: list[tuple[str, str, str, float]] = []
        """Models that were not called although it was their turn: provider, model, why (an error code), and when."""
        self.template = template
        self._prompt_tokens = prompt_tokens
        self._promised = template if opened else None
        self._asking: tuple[NewAttempt, asyncio.Future[Refusal | None]] | None = None
        self._running: NewAttempt | None = None
        self._ended: list[SettledAttempt] = []
        self._number = template.number if opened else template.number - 1
        self._began_at = 0.0

    def give_back(self, *, error_code: str = "") -> tuple[SettledAttempt, ...]:
        """Return the end of an attempt that was promised and is not needed; `error_code` tells why it is not made."""
        if self._promised is not None:
            self._ended.append(SettledAttempt(id=self._promised.id, outcome=AttemptOutcome.CANCELLED, error_code=error_code))
            self._promised = None
        return tuple(self._ended)

    async def begin(self, choice: ModelChoice) -> None:
        """Note that `choice` is about to be called.

        Raises:
            BudgetSpent, BudgetBusy, PriceUnknown: a budget refuses it.
        """
        first = self._promised
        if first is None or (first.provider, first.model) != (choice.provider.slug, choice.model):
            wanted = await self._attempt_of(choice)
            if first is not None and _covers(first, wanted):
                self._promised = replace(wanted, id=first.id, number=first.number)
            else:
                await self._settle_ended()
                self._number += 1
                await self._promise(replace(wanted, id=uuid7(), number=self._number, started_at=datetime.now(UTC)))
        self._running, self._promised = self._promised, None
        self._began_at = asyncio.get_running_loop().time()
        if self._running is not None:
            self.begun[self._running.id] = self._began_at

    def sending(self, body: bytes) -> None:
        """Note what the call sends."""
        self.body = body

    async def _attempt_of(self, choice: ModelChoice) -> NewAttempt:
        return replace(
            self.template,
            provider=choice.provider.slug,
            model=choice.model,
            price=await price_of(choice),
            worst_prompt_tokens=await most_prompt_tokens(choice, self._prompt_tokens),
        )

    async def wait_for_room(self, refusal: Refusal) -> None:
        """Have the first attempt written after all, where it was refused only because others may spend what is left.

        Raises:
            BudgetSpent, BudgetBusy, PriceUnknown: it stays refused.
        """
        self._number = self.template.number
        await self._promise(self.template, refusal=refusal)

    async def _promise(self, attempt: NewAttempt, *, refusal: Refusal | None = None) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _BUDGET_WAIT_S
        if refusal is None:
            refusal = await self._ask(attempt)
        while refusal is not None:
            if refusal.is_spent or loop.time() >= until:
                raise error_of(refusal)
            await asyncio.sleep(_BUDGET_LOOK_AGAIN_S)
            refusal = await self._ask(attempt)
        self._promised = attempt

    async def _ask(self, attempt: NewAttempt) -> Refusal | None:
        await budgets_now.get()
        asked = promising.submit(attempt)
        # Who leaves meanwhile may have been promised something all the same: `settle` finds out.
        self._asking = (attempt, asked)
        refusal = await asyncio.shield(asked)
        self._asking = None
        return refusal

    async def _settle_ended(self) -> None:
        """Give back, before more is asked for, what the attempts so far did not use."""
        self.give_back()
        await self._estimate()
        for attempt in self._ended:
            await asyncio.shield(settling.submit(attempt))

    def failed(self, error: UpstreamFailed) -> None:
        """Note that the call did not lead to an answer."""
        self._end(AttemptOutcome.FAILED, error_code=error.code, is_billable=error.is_billable)

    def left(self) -> None:
        """Note that nobody waits for the call any more."""
        self._end(AttemptOutcome.CANCELLED, is_billable=True)

    def skipped(self, choice: ModelChoice, error: UpstreamFailed) -> None:
        """Note that `choice` is not called, although it is its turn."""
        self.passed_over.append((choice.provider.slug, choice.model, error.code, asyncio.get_running_loop().time()))
        if self._promised is not None and (self._promised.provider, self._promised.model) == (choice.provider.slug, choice.model):
            self.give_back(error_code=error.code)

    def _end(self, outcome: AttemptOutcome, *, error_code: str = "", is_billable: bool) -> None:
        if running := self._running:
            self._running = None
            ended = self._settled(running, outcome, error_code=error_code)
            self._ended.append(replace(ended, is_estimated=is_billable))

    async def settle(self, finished: FinishedTurn, *, cached_tokens: int) -> tuple[SettledAttempt, ...]:
        """Return how all attempts of a turn ended, the last one as the turn did; may be asked again."""
        return await self.settle_as(
            _OUTCOMES[finished.state],
            usage=Usage(finished.prompt_tokens or 0, finished.completion_tokens or 0, cached_tokens),
            error_code=finished.error_code,
            is_estimated=finished.usage_estimated,
            first_token_ms=finished.first_token_ms,
        )

    async def settle_as(
        self,
        outcome: AttemptOutcome,
        *,
        usage: Usage | None,
        error_code: str = "",
        is_estimated: bool = False,
        first_token_ms: int | None = None,
    ) -> tuple[SettledAttempt, ...]:
        """Return how all attempts ended, the last one with `outcome`.

        One that was never made has used nothing; one without usage is estimated at what it was sent.
        """
        await self._finish_asking()
        self.give_back()
        if running := self._running:
            last = replace(self._settled(running, outcome, error_code=error_code), first_token_ms=first_token_ms)
            if usage is None:
                last = replace(last, is_estimated=True)
            else:
                last = replace(
                    last,
                    prompt_tokens=usage.prompt_tokens,
                    cached_tokens=usage.cached_tokens,
                    completion_tokens=usage.completion_tokens,
                    counted_prompt_tokens=None if is_estimated else await self._counted_to_learn(last),
                    is_estimated=is_estimated,
                )
            # At once, after whatever waits: who is cancelled meanwhile and asks again finds it still running.
            self._running = None
            self._ended.append(last)
        await self._estimate()
        return tuple(self._ended)

    async def _finish_asking(self) -> None:
        if asking := self._asking:
            with suppress(Exception):  # then nothing was promised, or nobody can know: the reaper ends what was
                if await asyncio.shield(asking[1]) is None:
                    self._promised = asking[0]
            self._asking = None

    async def _counted_to_learn(self, attempt: SettledAttempt) -> int | None:
        """Return how many tokens we count in the prompt, where that is to be learned from beside the provider's count."""
        if not self.messages or not (await measured_calibration(attempt.provider, attempt.model)).wants(attempt.id):
            return None
        return await asyncio.to_thread(count_prompt_tokens, self.messages, model=attempt.model)

    async def _estimate(self) -> None:
        """Count what calls have read that ended without telling their usage: never 0."""
        for place, attempt in enumerate(self._ended):
            if attempt.is_estimated and attempt.prompt_tokens is None:
                used = await estimated_usage(self.messages, provider=attempt.provider, model=attempt.model)
                self._ended[place] = replace(attempt, prompt_tokens=used.prompt_tokens, cached_tokens=0, completion_tokens=0)

    def _settled(self, attempt: NewAttempt, outcome: AttemptOutcome, *, error_code: str) -> SettledAttempt:
        return SettledAttempt(
            id=attempt.id,
            outcome=outcome,
            error_code=error_code,
            provider=attempt.provider,
            model=attempt.model,
            price=attempt.price,
            latency_ms=round((asyncio.get_running_loop().time() - self._began_at) * 1000),
        )


def _covers(promised: NewAttempt, wanted: NewAttempt) -> bool:
    """Tell whether what was promised to one model is enough for another one in its place, as a cheaper one's."""
    if promised.worst_usd is None or wanted.worst_usd is None:
        return False
    return wanted.worst_usd <= promised.worst_usd and wanted.worst_tokens <= promised.worst_tokens


async def estimated_usage(messages: Sequence[Message], reply: str = "", *, provider: str, model: str) -> Usage:
    """Return about what the provider counts, of a call that did not tell its usage: our counts, corrected by what was learned."""
    calibration = await find_calibration(provider, model)

    def count() -> Usage:  # a long text takes a while
        read, written = count_prompt_tokens(messages, model=model), count_tokens(reply, model=model)
        return Usage(calibration.estimate(read), calibration.estimate(written))

    return await asyncio.to_thread(count)


async def most_prompt_tokens(choice: ModelChoice, counted: int) -> int:
    """Return the most that the provider may count of a prompt that has at most `counted` tokens as we count."""
    return (await find_calibration(choice.provider.slug, choice.model)).most(counted)


async def price_of(choice: ModelChoice) -> Price | None:
    """Return what a model costs; None: unknown."""
    return FREE if choice.provider.is_demo else await find_price(choice.provider.slug, choice.model)
