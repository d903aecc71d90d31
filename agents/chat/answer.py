"""The chat turn, from a question to its events. Every way to chat goes through `answer()`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import Error as DatabaseError  # unlike its namesake in Django, with InterfaceError
from uuid_utils.compat import uuid7

from agents.access import Caller, resolve_session, subject_name
from agents.chat.events import ChatEvent, Delta, Done, Started
from agents.chat.memories import recall_for, shown_of
from agents.chat.prompt import build_prompt, check_message_fits, choose_summary, count_prompt_tokens, oldest_turn_in, recent_chars
from agents.chat.running import running_turns
from agents.providers.base import Message, ModelAnswer, ModelRequest, NoModel, UpstreamFailed
from agents.providers.chain import model_for
from agents.versions.live import AgentNotFound, Answering, LiveVersions, load_draft
from memory.api import FinishedTurn, NewTurn, OpenedTurn, Recalled, RecalledPassage, TurnState, finish_turns, open_turns
from observability.api import GroupCommit, count_tokens, run_burst
from observability.errors import ChatbotError

log = structlog.get_logger(__name__)

# A turn of a process that died is given up this long after its model had to be done.
_GRACE: Final = timedelta(seconds=30)
_STORING_ATTEMPTS: Final = 5

live_versions = LiveVersions()
_opening: GroupCommit[NewTurn, OpenedTurn] = GroupCommit(open_turns)
_closing: GroupCommit[FinishedTurn, bool] = GroupCommit(finish_turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a caller asks of an agent.

    Attributes:
        user: the end user whom the caller names; "" where it names none.
        version: answer with this published version; None: with the live one.
        draft: answer with the unpublished draft; for editors.
        stream: ask the model for a stream, so that the reply comes in pieces.
    """

    agent: str
    message: str
    caller: Caller
    session_id: str | None = None
    user: str = ""
    version: int | None = None
    draft: bool = False
    stream: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    request_id: str = ""


async def answer(question: Question) -> AsyncGenerator[ChatEvent, None]:
    """Answer `question`: yield `Started`, the reply in `Delta`s, and `Done` once the turn is stored.

    The person's message is stored before the model is called. Closing this iterator, or cancelling the task that runs it,
    hangs up on the model and stores what had arrived. No database connection is held while the model is awaited.

    Raises:
        AgentNotFound: before `Started`: no such agent, or not one this caller may use.
        VersionNotFound: before `Started`: the agent has no such published version.
        MessageOverBudget: before `Started`: the message alone exceeds the agent's prompt budget.
        Unavailable: before `Started`: too many turns at once.
        UpstreamFailed: after `Started`: every model in the agent's chain failed, or the answer broke midway.
    """
    answering = await _answering_version(question)
    await check_message_fits(answering, question.message)
    if not answering.choices:
        raise NoModel
    with running_turns.admit():
        turn = _Turn(question, answering)
        try:
            opened = await turn.open()
            yield Started(turn.id, turn.session_id, answering.slug, answering.number)
            async with aclosing(turn.reply(opened)) as pieces:
                async for text in pieces:
                    yield Delta(text)
            yield await turn.finish()
        except UpstreamFailed as error:
            log.warning("turn failed", message_id=str(turn.id), agent=answering.slug, reason=error.reason, error_code=error.code)
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


class _Turn:
    """One turn's state between its two bursts."""

    def __init__(self, question: Question, answering: Answering) -> None:
        self.id: UUID = uuid7()
        self.owner, self.session_id = resolve_session(question.caller, question.session_id)
        self._question = question
        self._answering = answering
        # Each model in the chain has its own time: one that hangs must not use up that of its fallbacks.
        self._total_s = sum(choice.provider.total_timeout_s for choice in answering.choices)
        self._started_at = asyncio.get_running_loop().time()
        self._opening: asyncio.Future[OpenedTurn] | None = None
        self._messages: list[Message] = []
        self._parts: list[str] = []
        self._model_answer: ModelAnswer | None = None
        self._first_token_ms: int | None = None
        self._was_cut = False
        self._summarise_before: int | None = None
        self._recalled: tuple[RecalledPassage, ...] = ()
        self._ended = False

    async def open(self) -> OpenedTurn:
        """Store the person's message and return what was said before."""
        question, answering = self._question, self._answering
        now = datetime.now(UTC)
        self._opening = asyncio.ensure_future(
            _opening.submit(
                NewTurn(
                    id=self.id,
                    owner=self.owner,
                    subject=subject_name(question.caller, user=question.user, session_id=self.session_id),
                    session_id=self.session_id,
                    agent=answering.slug,
                    version=answering.number,
                    message=question.message,
                    metadata=question.metadata,
                    request_id=question.request_id,
                    created_at=now,
                    deadline_at=now + timedelta(seconds=self._total_s) + _GRACE,
                    recent_turns=settings.CHAT_HISTORY_TURNS,
                    recent_chars=recent_chars(answering),
                    remember=answering.memory_enabled,
                    read_facts=answering.facts_by_model,
                )
            )
        )
        return await asyncio.shield(self._opening)

    async def reply(self, opened: OpenedTurn) -> AsyncGenerator[str, None]:
        """Ask the model and yield its reply in pieces, no longer in all than CHAT_MAX_REPLY_CHARS."""
        answering, loop = self._answering, asyncio.get_running_loop()
        message = self._question.message
        opened = await choose_summary(answering, message=message, opened=opened)
        recalled = await recall_for(answering, message=message, opened=opened) if answering.memory_enabled else Recalled()
        self._messages = await build_prompt(
            answering, message=message, recent=opened.recent, memories=recalled.passages, summary=opened.summary
        )
        oldest = oldest_turn_in(self._messages, opened=opened)
        if answering.summaries and oldest > opened.summarised_seq + 1:
            self._summarise_before = oldest
        self._recalled = shown_of(recalled, sent={turn.id for turn in opened.recent if turn.seq >= oldest})
        request = ModelRequest(
            messages=self._messages,
            temperature=answering.temperature,
            top_p=answering.top_p,
            max_output_tokens=answering.max_output_tokens,
            stream=self._question.stream,
            deadline=loop.time() + self._total_s,
        )
        self._model_answer = model_answer = await model_for(answering.choices).start(request)
        self._first_token_ms = round((loop.time() - self._started_at) * 1000)
        left_chars = settings.CHAT_MAX_REPLY_CHARS
        try:
            async for text in model_answer:
                self._was_cut = len(text) > left_chars
                self._parts.append(text[:left_chars])
                yield text[:left_chars]
                left_chars -= len(text)
                if self._was_cut:
                    break
        finally:
            await model_answer.aclose()

    async def finish(self) -> Done:
        """Store the complete reply, then tell of it."""
        finished = self._finished(TurnState.DONE)
        try:
            finished = await self._store(finished)
        except DatabaseError:
            self._store_in_background(finished)
            raise
        return Done(
            message_id=self.id,
            session_id=self.session_id,
            agent=self._answering.slug,
            version=self._answering.number,
            reply=finished.reply,
            model=finished.model,
            finish_reason=finished.finish_reason,
            prompt_tokens=finished.prompt_tokens or 0,
            completion_tokens=finished.completion_tokens or 0,
        )

    async def fail(self, error: ChatbotError) -> None:
        """Store that the model failed, with what had arrived."""
        finished = self._finished(TurnState.INTERRUPTED if self._parts else TurnState.FAILED, error_code=error.code)
        try:
            await self._store(finished)
        except DatabaseError:
            self._store_in_background(finished)

    def abandon(self, error: BaseException) -> None:
        """Store, in the background, what had arrived when the client left, the process had to stop, or we failed."""
        if self._ended or self._opening is None:
            return
        client_left = isinstance(error, asyncio.CancelledError | GeneratorExit) and not running_turns.stopping
        state = TurnState.CANCELLED if client_left else TurnState.INTERRUPTED if self._parts else TurnState.FAILED
        code = "" if client_left else "stopped" if running_turns.stopping else "internal-error"
        self._store_in_background(self._finished(state, error_code=code))

    async def _store(self, finished: FinishedTurn) -> FinishedTurn:
        if finished.usage_estimated:
            finished = await asyncio.to_thread(self._estimated, finished)  # a long text takes a while to count
        await _closing.submit(finished)
        self._ended = True
        return finished

    def _store_in_background(self, finished: FinishedTurn) -> None:
        self._ended = True
        running_turns.finish_in_background(self._store_patiently(finished))

    async def _store_patiently(self, finished: FinishedTurn) -> None:
        if self._opening is None:
            return
        try:
            await self._opening
        except Exception:  # the turn was never stored: there is nothing to end
            return
        for attempt in range(_STORING_ATTEMPTS):
            try:
                await self._store(finished)
            except DatabaseError as error:
                log.warning("turn not stored yet", message_id=str(self.id), attempt=attempt + 1, error=str(error))
                await asyncio.sleep(2**attempt * 0.5)
            else:
                return
        log.error("turn not stored; it will be marked as left behind", message_id=str(self.id))

    def _finished(self, state: TurnState, *, error_code: str = "") -> FinishedTurn:
        reply = "".join(self._parts)
        model_answer = self._model_answer
        model = model_answer.model if model_answer else ""
        usage = model_answer.usage if model_answer else None
        finish_reason = "length" if self._was_cut else model_answer.finish_reason if model_answer else ""
        return FinishedTurn(
            id=self.id,
            state=state,
            reply=reply,
            provider=model_answer.provider if model_answer else "",
            model=model,
            finish_reason=finish_reason if state is TurnState.DONE else "",
            error_code=error_code,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            usage_estimated=usage is None and model_answer is not None,
            first_token_ms=self._first_token_ms,
            summarise_before=self._summarise_before,
            recalled=self._recalled,
        )

    def _estimated(self, finished: FinishedTurn) -> FinishedTurn:
        return replace(
            finished,
            prompt_tokens=count_prompt_tokens(self._messages, model=finished.model),
            completion_tokens=count_tokens(finished.reply, model=finished.model),
        )
