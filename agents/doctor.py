"""The doctor's examinations of agents and their models: each model in use is asked for one token, which is in the ledger.

The calls count as evaluations of no agent, and budgets for everything refuse them as they do any other call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

from django.core import checks
from django.db import DEFAULT_DB_ALIAS
from uuid_utils.compat import uuid7

from agents.chat.bursts import settling
from agents.chat.metering import Meter, most_prompt_tokens, price_of
from agents.checks import check_agents, check_providers
from agents.providers.base import Message, ModelRequest, UpstreamFailed, Usage
from agents.providers.chain import Metered
from agents.providers.wire import OpenAIWire
from agents.versions.live import ModelChoice, list_live
from observability.api import (
    READING_TABLES,
    AttemptKind,
    AttemptOutcome,
    Examination,
    Finding,
    NewAttempt,
    count_attempt,
    in_thread,
    register_examination,
)
from observability.errors import ChatbotError

_MESSAGES: Final[list[Message]] = [{"role": "user", "content": "Hi"}]
_PROMPT_TOKENS: Final = 50
_WITHIN_S: Final = 12.0
# Models asked side by side: of more, each would answer late for no fault of its own.
_AT_ONCE: Final = 32
_GRACE: Final = timedelta(seconds=30)
_REMEDIES: Final = (
    ("HTTP 401", "It refuses the key: enter it again in the admin under Providers, or correct the variable that holds it."),
    ("HTTP 402", "The account has no credit left: add some at the vendor's."),
    ("HTTP 403", "It refuses the key: see what the vendor lets that key do."),
    (
        "HTTP 404",
        "It does not know the model, or the address is not the API's: correct the model, or the address, which usually ends in /v1.",
    ),
    ("HTTP 429", "The vendor's quota is used up: raise it there, or wait."),
    ("HTTP 5", "The vendor has trouble: see its status page. Fallback models help meanwhile."),
    ("OUTBOUND_ALLOWED_HOSTS", "Add the host to OUTBOUND_ALLOWED_HOSTS, if this server may call it."),
    ("no connection", "Check the provider's address in the admin, that it runs, and that this machine may open connections to it."),
)


def register_agents_examinations() -> None:
    """Register them; agents' `ready()` calls it."""
    admin = "See Agents and Providers in the admin."
    register_examination(Examination(name="agents", run=in_thread(_look_at_agents), needs=READING_TABLES, remedy=admin))
    register_examination(
        Examination(
            name="model",
            run=_look_at_models,
            needs=READING_TABLES,
            remedy="See Providers in the admin.",
            is_call=True,
        )
    )


def _look_at_agents() -> Sequence[Finding]:
    databases = [DEFAULT_DB_ALIAS]
    found = [*check_providers(databases=databases), *check_agents(databases=databases)]
    troubles = [Finding.warning(message.msg, message.hint or "") for message in found if message.level >= checks.WARNING]
    return troubles or [Finding.ok(f"{len(list_live(lambda agent: True))} answer")]


async def _look_at_models() -> Sequence[Finding]:
    choices = await in_thread(_choices)()
    if not choices:
        return [Finding.ok("no agent is published")]
    room = asyncio.Semaphore(_AT_ONCE)

    async def try_in_turn(choice: ModelChoice) -> Finding:
        async with room:
            return await _try(choice)

    return await asyncio.gather(*(try_in_turn(choice) for choice in choices))


def _choices() -> list[ModelChoice]:
    """Return every model that a published version of an active agent may ask, each once."""
    found: dict[tuple[str, str], ModelChoice] = {}
    for answering in list_live(lambda agent: True):
        for choice in (*answering.choices, *answering.background, answering.simple, answering.classifier):
            if choice and choice.model:
                found.setdefault((choice.provider.slug, choice.model), choice)
    return list(found.values())


async def _try(choice: ModelChoice) -> Finding:
    about = f"{choice.model} at {choice.provider.slug}"
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(_WITHIN_S):
            await _ask(choice)
    except TimeoutError:
        remedy = "See the vendor's status page, or that the server behind the address is not overloaded."
        return Finding.failed(f"no answer within {_WITHIN_S:.0f} s", remedy, about=about)
    except UpstreamFailed as error:
        remedy = next((remedy for phrase, remedy in _REMEDIES if phrase in error.reason), "Check the provider's address in the admin.")
        return Finding.failed(error.reason, remedy, about=about)
    except ChatbotError as error:
        return Finding.warning(f"not asked: {error.detail}", "Raise the budget in the admin, or wait.", about=about)
    return Finding.ok(f"it answered in {asyncio.get_running_loop().time() - began:.1f} s", about=about)


async def _ask(choice: ModelChoice) -> None:
    """Have `choice` write one token.

    Raises:
        UpstreamFailed: it did not.
        ChatbotError: a budget refuses the call.
    """
    meter = await _meter(choice)
    outcome, usage = AttemptOutcome.FAILED, None
    try:
        request = ModelRequest(
            messages=_MESSAGES,
            temperature=None,
            top_p=None,
            max_output_tokens=1,
            stream=False,
            deadline=asyncio.get_running_loop().time() + _WITHIN_S,
            meter=meter,
        )
        answer = await Metered(OpenAIWire(choice.provider, choice.model), choice).start(request)
        async with aclosing(answer):
            async for _ in answer:
                pass
        outcome, usage = AttemptOutcome.DONE, answer.usage or Usage(_PROMPT_TOKENS, 1)
    finally:
        for attempt in await meter.settle_as(outcome, usage=usage):
            if await asyncio.shield(settling.submit(attempt)):
                count_attempt(attempt, agent="")


async def _meter(choice: ModelChoice) -> Meter:
    now = datetime.now(UTC)
    template = NewAttempt(
        id=uuid7(),
        kind=AttemptKind.EVALUATION,
        provider=choice.provider.slug,
        model=choice.model,
        price=await price_of(choice),
        started_at=now,
        deadline_at=now + timedelta(seconds=_WITHIN_S) + _GRACE,
        worst_prompt_tokens=await most_prompt_tokens(choice, _PROMPT_TOKENS),
        worst_completion_tokens=1,
    )
    meter = Meter(template, prompt_tokens=_PROMPT_TOKENS, opened=False)
    meter.messages = _MESSAGES
    return meter
