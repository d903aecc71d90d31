"""What an agent's model does in the background: asking it, and laying before it what was said.

A version names a smaller model for this, or uses its own. Nobody waits for the answer, so it is asked without streaming, and what
fails is tried again later by the worker that asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from uuid_utils.compat import uuid7

from agents.chat.answer import live_versions
from agents.chat.bursts import settling
from agents.chat.metering import Meter, estimated_usage, most_prompt_tokens, price_of
from agents.chat.prompt import count_prompt_tokens
from agents.providers.base import Message, ModelRequest, NoModel, UpstreamFailed, Usage
from agents.providers.chain import model_for
from agents.versions.live import AgentNotFound, Answering
from memory.api import PastTurn
from observability.api import AttemptKind, AttemptOutcome, NewAttempt, count_attempt

# A call of a process that died is given up this long after it had to be done.
_GRACE: Final = timedelta(seconds=30)
# What one side of a turn may have at most: the first of these at which the whole fits the prompt budget.
_SIDE_CHARS: Final = (8000, 4000, 2000, 1000, 500, 250, 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model wrote. Counts in tokens: the provider's, or ours where it reported none."""

    text: str
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    is_estimated: bool = False


async def complete_with(answering: Answering, *, kind: AttemptKind, messages: list[Message], max_output_tokens: int) -> Completion:
    """Return what the model for background work of a version answers to `messages`.

    Raises:
        NoModel: none is set up.
        UpstreamFailed: it did not answer, broke off, or wrote nothing.
        BudgetSpent, BudgetBusy, PriceUnknown: a budget refuses the call.
    """
    if not answering.background:
        raise NoModel
    meter = await _meter(answering, kind=kind, max_output_tokens=max_output_tokens)
    meter.messages = messages
    outcome, usage = AttemptOutcome.FAILED, None
    try:
        completion = await _complete(answering, messages=messages, max_output_tokens=max_output_tokens, meter=meter)
        outcome, usage = AttemptOutcome.DONE, Usage(completion.prompt_tokens, completion.completion_tokens, completion.cached_tokens)
        return completion
    finally:
        is_estimated = outcome is AttemptOutcome.DONE and completion.is_estimated
        for attempt in await meter.settle_as(outcome, usage=usage, is_estimated=is_estimated):
            if await asyncio.shield(settling.submit(attempt)):
                count_attempt(attempt, agent=answering.slug)


async def _meter(answering: Answering, *, kind: AttemptKind, max_output_tokens: int) -> Meter:
    choice = answering.background[0]
    now = datetime.now(UTC)
    template = NewAttempt(
        id=uuid7(),
        kind=kind,
        agent=answering.slug,
        version=answering.number,
        provider=choice.provider.slug,
        model=choice.model,
        price=await price_of(choice),
        started_at=now,
        deadline_at=now + timedelta(seconds=choice.provider.total_timeout_s) + _GRACE,
        worst_prompt_tokens=await most_prompt_tokens(choice, answering.prompt_budget_tokens),
        worst_completion_tokens=max_output_tokens,
    )
    return Meter(template, prompt_tokens=answering.prompt_budget_tokens, opened=False)


async def _complete(answering: Answering, *, messages: list[Message], max_output_tokens: int, meter: Meter) -> Completion:
    request = ModelRequest(
        messages=messages,
        temperature=None,
        top_p=None,
        max_output_tokens=max_output_tokens,
        stream=False,
        deadline=asyncio.get_running_loop().time() + answering.background[0].provider.total_timeout_s,
        meter=meter,
    )
    model_answer = await model_for(answering.background).start(request)
    async with aclosing(model_answer):
        text = "".join([piece async for piece in model_answer]).strip()
    if not text:
        raise UpstreamFailed(f"{model_answer.model} wrote nothing within {max_output_tokens} tokens", retryable=False)
    usage, model = model_answer.usage, model_answer.model
    used = usage or await estimated_usage(messages, text, provider=model_answer.provider, model=model)
    return Completion(
        text=text,
        provider=model_answer.provider,
        model=model,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        cached_tokens=used.cached_tokens,
        is_estimated=usage is None,
    )


async def live_version_of(agent: str) -> Answering | None:
    """Return the live version of `agent`; None where there is none, or it is switched off."""
    try:
        return await live_versions.find(agent)
    except AgentNotFound:
        return None


async def fit(answering: Answering, make: Callable[[int], list[Message]]) -> list[Message]:
    """Return the messages that `make` makes, given how many characters a side of a turn may have, within the prompt budget."""
    return await asyncio.to_thread(_fit, answering, make)


def _fit(answering: Answering, make: Callable[[int], list[Message]]) -> list[Message]:
    model = answering.background[0].model if answering.background else ""
    for side_chars in _SIDE_CHARS:
        messages = make(side_chars)
        if count_prompt_tokens(messages, model=model) <= answering.prompt_budget_tokens:
            break
    return messages


def dialogue(turns: Sequence[PastTurn], *, side_chars: int, numbered: bool = False) -> str:
    """Return `turns` as lines of who said what, long ones cut in the middle; with the person's `numbered` from 1."""
    lines: list[str] = []
    for number, turn in enumerate(turns, start=1):
        person = f"{number}. Person" if numbered else "Person"
        lines += [f"{person}: {_cut(turn.message, side_chars)}", f"Assistant: {_cut(turn.reply, side_chars)}"]
    return "\n".join(lines)


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[: chars * 2 // 3]} […] {text[-chars // 3 :]}"
