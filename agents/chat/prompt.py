"""What is sent to the model: the system prompt, as many recent turns as the budget holds, and the new message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from agents.providers.base import Message
from agents.versions.live import Answering
from memory.api import PastTurn
from observability.api import count_tokens, count_tokens_of_prompt, most_tokens
from observability.errors import BadRequest

# How chat messages are framed: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
_TOKENS_PER_MESSAGE: Final = 4
_TOKENS_TO_BEGIN_THE_REPLY: Final = 3
# Text rarely has more characters than this to a token, so what is fetched beyond it would not fit anyway.
_CHARS_PER_TOKEN: Final = 8


class MessageOverBudget(BadRequest):
    """The message alone has more tokens than the agent's prompt budget leaves."""

    code = "message-over-budget"
    title = "Message too long for this agent"


async def check_message_fits(answering: Answering, message: str) -> None:
    """Refuse a message that leaves no room in the prompt budget even without any earlier turn.

    Raises:
        MessageOverBudget: says how many tokens the message has and how many are allowed.
    """
    budget = answering.prompt_budget_tokens - 2 * _TOKENS_PER_MESSAGE - _TOKENS_TO_BEGIN_THE_REPLY
    if most_tokens(message) + most_tokens(answering.system_prompt) > budget:
        await asyncio.to_thread(_check_exactly, answering, message, budget)  # counting a long text takes a while


def _check_exactly(answering: Answering, message: str, budget: int) -> None:
    model = _model(answering)
    allowed = max(0, budget - count_tokens_of_prompt(answering.system_prompt, model=model))
    if most_tokens(message) <= allowed:
        return
    asked = count_tokens(message, model=model)
    if asked > allowed:
        detail = f"The message has {asked:,} tokens; this agent takes at most {allowed:,}. Send a shorter message."
        raise MessageOverBudget(detail, fields={"message": [detail]})


def recent_chars(answering: Answering) -> int:
    """Return how many characters of earlier turns are worth fetching."""
    return answering.prompt_budget_tokens * _CHARS_PER_TOKEN


async def build_prompt(answering: Answering, *, message: str, recent: Sequence[PastTurn]) -> list[Message]:
    """Return the messages to send. Whole turns are left out, the oldest first, until the rest fits the prompt budget."""
    system: Message = {"role": "system", "content": answering.system_prompt}
    newest: Message = {"role": "user", "content": message}
    if not recent:
        return [system, newest]
    kept = len(recent) if _all_fit(answering, message, recent) else await asyncio.to_thread(_newest_that_fit, answering, message, recent)
    history: list[Message] = []
    for turn in recent[len(recent) - kept :]:
        history.append({"role": "user", "content": turn.message})
        history.append({"role": "assistant", "content": turn.reply})
    return [system, *history, newest]


def count_prompt_tokens(messages: Sequence[Message], *, model: str) -> int:
    """Return how many tokens `messages` are for `model`, their framing included."""
    return _TOKENS_TO_BEGIN_THE_REPLY + sum(_TOKENS_PER_MESSAGE + count_tokens(message["content"], model=model) for message in messages)


def _all_fit(answering: Answering, message: str, recent: Sequence[PastTurn]) -> bool:
    framing = _TOKENS_TO_BEGIN_THE_REPLY + _TOKENS_PER_MESSAGE * (2 + 2 * len(recent))
    texts = [answering.system_prompt, message, *(text for turn in recent for text in (turn.message, turn.reply))]
    return framing + sum(map(most_tokens, texts)) <= answering.prompt_budget_tokens


def _newest_that_fit(answering: Answering, message: str, recent: Sequence[PastTurn]) -> int:
    model = _model(answering)
    left = answering.prompt_budget_tokens - _TOKENS_TO_BEGIN_THE_REPLY - 2 * _TOKENS_PER_MESSAGE
    left -= count_tokens_of_prompt(answering.system_prompt, model=model) + count_tokens(message, model=model)
    kept = 0
    for turn in reversed(recent):
        left -= 2 * _TOKENS_PER_MESSAGE + count_tokens(turn.message, model=model) + count_tokens(turn.reply, model=model)
        if left < 0:
            break
        kept += 1
    return kept


def _model(answering: Answering) -> str:
    return answering.choices[0].model if answering.choices else ""
