"""The chat turn, from a question to its events. Every way to chat goes through `answer()`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from agents.chat.events import ChatEvent, Delta
from agents.chat.prompt import check_message_fits
from agents.chat.question import Question
from agents.chat.running import running_turns
from agents.chat.turn import ChatTurn
from agents.providers.base import NoModel, UpstreamFailed
from agents.versions.live import AgentNotFound, Answering, LiveVersions, load_draft
from observability.api import run_burst
from observability.errors import ChatbotError
from observability.logs import without

log = structlog.get_logger(__name__)

live_versions = LiveVersions()


async def answer(question: Question) -> AsyncGenerator[ChatEvent, None]:
    """Answer `question`: yield `Started`, the reply in `Delta`s, and `Done` once the turn is stored.

    The person's message is stored before the model is called. Closing this iterator, or cancelling the task that runs it,
    hangs up on the model and stores what had arrived. No database connection is held while the model is awaited.

    Raises:
        AgentNotFound: before `Started`: no such agent, or not one this caller may use.
        VersionNotFound: before `Started`: the agent has no such published version.
        MessageOverBudget: before `Started`: the message alone exceeds the agent's prompt budget.
        Unavailable: before `Started`: too many turns at once.
        RateLimited: before `Started`: a rate limit is used up.
        BudgetSpent, BudgetBusy, PriceUnknown: a budget refuses; after `Started` only where a fallback is refused.
        UpstreamFailed: after `Started`: every model in the agent's chain failed, or the answer broke midway.
    """
    answering = await _answering_version(question)
    await check_message_fits(answering, question.message)
    if not answering.choices:
        raise NoModel
    with running_turns.admit():
        turn = ChatTurn(question, answering)
        try:
            yield await turn.open()
            async with aclosing(turn.reply()) as pieces:
                async for text in pieces:
                    yield Delta(text)
            yield await turn.finish()
        except UpstreamFailed as error:
            log.warning(
                "turn failed",
                message_id=str(turn.id),
                agent=answering.slug,
                reason=without(error.reason, [question.message]),
                error_code=error.code,
            )
            error.headers = {**turn.headers, **error.headers}
            await turn.fail(error)
            raise
        except ChatbotError as error:
            error.headers = {**turn.headers, **error.headers}
            await turn.fail(error)
            raise
        except BaseException as error:
            # Cancelled, closed, or a fault of ours: whatever it was, what had arrived is kept.
            turn.abandon(error)
            raise


async def _answering_version(question: Question) -> Answering:
    if question.draft:
        if not question.caller.is_editor:
            raise AgentNotFound
        return await run_burst(load_draft, question.agent)
    answering = await live_versions.find(question.agent)
    if not question.caller.may_use(answering.slug, access=answering.access):
        raise AgentNotFound
    if question.version not in (None, answering.number):
        return await live_versions.find(question.agent, version=question.version)
    return answering
