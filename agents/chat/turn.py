"""One turn's state between its two visits to the stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import Error as DatabaseError  # unlike its namesake in Django, with InterfaceError
from uuid_utils.compat import uuid7

from agents.access import resolve_session, subject_name
from agents.chat.bursts import Entered, Entry, Leaving, Step, entering, finished_by, leaving, saved_by
from agents.chat.events import Done, Started
from agents.chat.memories import recall_for, shown_of
from agents.chat.metering import Meter, budgets_now, first_choice, wait_for_room
from agents.chat.prompt import build_prompt, choose_summary, count_prompt_tokens, oldest_turn_in, recent_chars
from agents.chat.question import Question
from agents.chat.refusals import RateLimited
from agents.chat.replies import CachedReply, end_flights, flights, key_of, may_be_cached
from agents.chat.running import running_turns
from agents.providers.base import Message, ModelAnswer, ModelRequest
from agents.providers.chain import model_for
from agents.versions.live import Answering
from memory.api import FinishedTurn, NewTurn, OpenedTurn, Recalled, RecalledPassage, TurnState
from observability.api import (
    AttemptKind,
    Budget,
    NewAttempt,
    SettledAttempt,
    Visit,
    count_tokens,
    headers_of,
    limits,
    rules_for,
)
from observability.errors import ChatbotError

log = structlog.get_logger(__name__)

# A turn of a process that died is given up this long after its model had to be done.
_GRACE: Final = timedelta(seconds=30)
_STORING_ATTEMPTS: Final = 5


class ChatTurn:
    """A question on its way to its answer: `open`, `reply`, and one of `finish`, `fail` and `abandon`."""

    def __init__(self, question: Question, answering: Answering) -> None:
        self.id: UUID = uuid7()
        self.owner, self.session_id = resolve_session(question.caller, question.session_id)
        self._question = question
        self._answering = answering
        # Each model in the chain has its own time: one that hangs must not use up that of its fallbacks.
        self._total_s = sum(choice.provider.total_timeout_s for choice in answering.choices)
        self._started_at = asyncio.get_running_loop().time()
        self._now = datetime.now(UTC)
        self._entering: asyncio.Future[Entered] | None = None
        self._entered: Entered | None = None
        self._visit = Visit(id=str(self.id), rules=(), lease_s=self._total_s + _GRACE.total_seconds())
        self._meter: Meter | None = None
        self._attempt: NewAttempt | None = None
        self._kept: CachedReply | None = None
        self._leads = False
        self._messages: list[Message] = []
        self._parts: list[str] = []
        self._model_answer: ModelAnswer | None = None
        self._first_token_ms: int | None = None
        self._was_cut = False
        self._summarise_before: int | None = None
        self._recalled: tuple[RecalledPassage, ...] = ()
        self._ended = False

    async def open(self) -> Started:
        """Store the person's message, unless a limit refuses it.

        Raises:
            RateLimited: nothing is stored.
            BudgetSpent, BudgetBusy, PriceUnknown: the turn is stored, and has failed.
        """
        question, answering = self._question, self._answering
        subject = subject_name(question.caller, user=question.user, session_id=self.session_id)
        rules = rules_for(
            await limits.get(),
            address=question.address,
            session=f"{self.owner}/{subject}" if question.address else "",
            key=question.caller.key_id,
            agent=answering.slug if question.address else "",
        )
        self._visit = replace(self._visit, rules=rules)
        budgets = await budgets_now.get()
        self._attempt = await self._first_attempt()
        entry = Entry(
            turn=self._new_turn(subject), attempt=self._attempt, visit=self._visit, budgets=budgets, key_of=self._key_of,
            wants_fresh=question.wants_fresh,
        )  # fmt: skip
        self._entering = asyncio.ensure_future(entering.submit(entry))
        self._entered = entered = await asyncio.shield(self._entering)
        if entered.verdict.refused:
            self._ended = True
            raise RateLimited(entered.verdict, entered.verdict.refused)
        opened = self._opened
        self._attempt = replace(self._attempt, conversation_id=opened.conversation_id, subject_id=opened.subject_id)
        self._kept = entered.found.reply
        if self._kept is None:
            await self._take_place(entered, budgets)
        return Started(self.id, self.session_id, answering.slug, answering.number, headers_of(entered.verdict))

    async def _take_place(self, entered: Entered, budgets: list[Budget]) -> None:
        """Find out who calls the model: this turn, or one with the same prompt, whose answer it then waits for."""
        assert self._attempt is not None
        self._meter = Meter(self._attempt, budgets=budgets, opened=entered.attempt is not None)
        if entered.refusal is not None:
            step = Step(settled=(), attempt=self._attempt, budgets=budgets)
            await wait_for_room(entered.refusal, step)
            self._meter = Meter(self._attempt, budgets=budgets, opened=True)
        if entered.key is not None and not self._question.wants_fresh:
            # Where Redis is away everybody leads; then at least one a process does.
            self._leads = entered.found.leads and flights.lead(entered.key)
            if not self._leads:
                self._kept = await flights.wait(entered.key, seconds=self._total_s)

    async def _first_attempt(self) -> NewAttempt:
        choice, price = await first_choice(self._answering)
        answering, question = self._answering, self._question
        return NewAttempt(
            id=uuid7(),
            turn_id=self.id,
            kind=AttemptKind.CHAT,
            agent=answering.slug,
            version=answering.number,
            key=question.caller.key_id,
            provider=choice.provider.slug,
            model=choice.model,
            price=price,
            request_id=question.request_id,
            started_at=self._now,
            deadline_at=self._now + timedelta(seconds=self._total_s) + _GRACE,
            worst_prompt_tokens=answering.prompt_budget_tokens,
            worst_completion_tokens=answering.max_output_tokens,
        )

    def _new_turn(self, subject: str) -> NewTurn:
        question, answering = self._question, self._answering
        return NewTurn(
            id=self.id,
            owner=self.owner,
            subject=subject,
            session_id=self.session_id,
            agent=answering.slug,
            version=answering.number,
            message=question.message,
            metadata=question.metadata,
            request_id=question.request_id,
            created_at=self._now,
            deadline_at=self._now + timedelta(seconds=self._total_s) + _GRACE,
            recent_turns=settings.CHAT_HISTORY_TURNS,
            recent_chars=recent_chars(answering),
            remember=answering.memory_enabled,
            read_facts=answering.facts_by_model,
        )

    def _key_of(self, opened: OpenedTurn) -> str | None:
        question, answering = self._question, self._answering
        if not may_be_cached(answering, is_draft=question.draft):
            return None
        return key_of(answering, caller=question.caller, user=question.user, message=question.message, opened=opened)

    @property
    def _opened(self) -> OpenedTurn:
        assert self._entered is not None
        assert self._entered.opened is not None
        return self._entered.opened

    async def reply(self) -> AsyncGenerator[str, None]:
        """Yield the reply in pieces, no longer in all than CHAT_MAX_REPLY_CHARS: a kept one, or the model's."""
        if self._kept is not None:
            self._parts.append(self._kept.reply)
            yield self._kept.reply
            return
        loop = asyncio.get_running_loop()
        request = await self._request()
        self._model_answer = model_answer = await model_for(self._answering.choices).start(request)
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

    async def _request(self) -> ModelRequest:
        """Return what the model is asked: with memories and a summary, as far as they fit."""
        answering, message = self._answering, self._question.message
        opened = await choose_summary(answering, message=message, opened=self._opened)
        recalled = await recall_for(answering, message=message, opened=opened) if answering.memory_enabled else Recalled()
        self._messages = await build_prompt(
            answering, message=message, recent=opened.recent, memories=recalled.passages, summary=opened.summary
        )
        oldest = oldest_turn_in(self._messages, opened=opened)
        if answering.summaries and oldest > opened.summarised_seq + 1:
            self._summarise_before = oldest
        self._recalled = shown_of(recalled, sent={turn.id for turn in opened.recent if turn.seq >= oldest})
        assert self._meter is not None
        return ModelRequest(
            messages=self._messages,
            temperature=answering.temperature,
            top_p=answering.top_p,
            max_output_tokens=answering.max_output_tokens,
            stream=self._question.stream,
            deadline=asyncio.get_running_loop().time() + self._total_s,
            meter=self._meter,
        )

    async def finish(self) -> Done:
        """Store the complete reply, then tell of it."""
        if self._kept is not None:
            return await self._finish_kept(self._kept)
        leaving_turn = await self._leaving(self._finished(TurnState.DONE))
        try:
            await self._store(leaving_turn)
        except DatabaseError:
            self._store_in_background(leaving_turn)
            raise
        costs = [attempt.cost_usd for attempt in leaving_turn.settled]
        return self._done(leaving_turn.finished, cost_usd=None if None in costs else sum(filter(None, costs), Decimal(0)))

    async def _finish_kept(self, kept: CachedReply) -> Done:
        finished = finished_by(self.id, kept)
        if self._entered and self._entered.found.reply is None:  # it came from a turn that answered the same just now
            assert self._attempt is not None
            attempt = replace(self._attempt, id=uuid7())
            await self._store(Leaving(finished=finished, settled=(), visit=self._visit, cached=attempt, saved=saved_by(attempt, kept)))
        self._ended = True
        return self._done(finished, cost_usd=Decimal(0), saved_usd=kept.cost, cached=True)

    def _done(self, finished: FinishedTurn, *, cost_usd: Decimal | None, saved_usd: Decimal = Decimal(0), cached: bool = False) -> Done:
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
            cost_usd=cost_usd,
            saved_usd=saved_usd,
            cached=cached,
        )

    async def fail(self, error: ChatbotError) -> None:
        """Store that no answer came, or only a part of one."""
        if self._ended:
            return
        finished = self._finished(TurnState.INTERRUPTED if self._parts else TurnState.FAILED, error_code=error.code)
        leaving_turn = await self._leaving(finished)
        try:
            await self._store(leaving_turn)
        except DatabaseError:
            self._store_in_background(leaving_turn)

    def abandon(self, error: BaseException) -> None:
        """Store, in the background, what had arrived when the client left, the process had to stop, or we failed."""
        if self._ended or self._entering is None:
            return
        client_left = isinstance(error, asyncio.CancelledError | GeneratorExit) and not running_turns.stopping
        state = TurnState.CANCELLED if client_left else TurnState.INTERRUPTED if self._parts else TurnState.FAILED
        code = "" if client_left else "stopped" if running_turns.stopping else "internal-error"
        self._ended = True
        running_turns.finish_in_background(self._abandon(self._finished(state, error_code=code)))

    async def _abandon(self, finished: FinishedTurn) -> None:
        assert self._entering is not None
        try:
            entered = await self._entering
        except Exception:  # the turn was never stored: there is nothing to end
            return
        if entered.opened is None or entered.found.reply is not None:  # nor where it is ended already
            return
        if self._meter is None and entered.attempt is not None:
            self._meter = Meter(entered.attempt, budgets=(), opened=True)
        await self._store_patiently(await self._leaving(finished))

    async def _leaving(self, finished: FinishedTurn) -> Leaving:
        """Return everything that is to be stored of the turn's end."""
        if finished.usage_estimated:
            finished = await asyncio.to_thread(self._estimated, finished)  # a long text takes a while to count
        usage = self._model_answer.usage if self._model_answer else None
        settled = self._meter.settle(finished, cached_tokens=usage.cached_tokens if usage else 0) if self._meter else ()
        return Leaving(finished=finished, settled=settled, visit=self._visit, keep=self._to_keep(finished, settled))

    def _to_keep(self, finished: FinishedTurn, settled: tuple[SettledAttempt, ...]) -> tuple[str, CachedReply, int] | None:
        """Return the answer for the cache: a whole one, of the first model of the chain."""
        key = self._entered.key if self._entered else None
        is_whole = finished.state is TurnState.DONE and finished.finish_reason == "stop" and not self._recalled
        if key is None or not is_whole or not settled or settled[-1].model != self._answering.choices[0].model:
            return None
        cost = settled[-1].cost_usd
        kept = CachedReply(
            reply=finished.reply,
            provider=finished.provider,
            model=finished.model,
            finish_reason=finished.finish_reason,
            prompt_tokens=finished.prompt_tokens or 0,
            completion_tokens=finished.completion_tokens or 0,
            cost_usd=None if cost is None else str(cost),
        )
        return key, kept, self._answering.reply_cache_s

    async def _store(self, turn: Leaving) -> None:
        try:
            await leaving.submit(turn)
        finally:
            await self._land(turn.keep[1] if turn.keep else None)
        self._ended = True

    async def _land(self, reply: CachedReply | None) -> None:
        """Tell those who wait for this answer."""
        key = self._entered.key if self._entered else None
        if key is not None and self._leads:
            self._leads = False
            flights.land(key, reply)
            if reply is None:  # a kept answer has ended the flight already
                await asyncio.to_thread(end_flights, [key])

    def _store_in_background(self, turn: Leaving) -> None:
        self._ended = True
        running_turns.finish_in_background(self._store_patiently(turn))

    async def _store_patiently(self, turn: Leaving) -> None:
        for attempt in range(_STORING_ATTEMPTS):
            try:
                await self._store(turn)
            except DatabaseError as error:
                log.warning("turn not stored yet", message_id=str(self.id), attempt=attempt + 1, error=str(error))
                await asyncio.sleep(2**attempt * 0.5)
            else:
                return
        log.error("turn not stored; it will be marked as left behind", message_id=str(self.id))

    def _finished(self, state: TurnState, *, error_code: str = "") -> FinishedTurn:
        model_answer = self._model_answer
        usage = model_answer.usage if model_answer else None
        finish_reason = "length" if self._was_cut else model_answer.finish_reason if model_answer else ""
        return FinishedTurn(
            id=self.id,
            state=state,
            reply="".join(self._parts),
            provider=model_answer.provider if model_answer else "",
            model=model_answer.model if model_answer else "",
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
