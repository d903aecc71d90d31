"""One turn's state between its two visits to the stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import Error as DatabaseError  # unlike its namesake in Django, with InterfaceError
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from agents.chat.bursts import Entered, Entry, Leaving, cached_by, entering, finished_by, leaving
from agents.chat.classifying import Classifier
from agents.chat.ending import Draft, done_with, to_keep
from agents.chat.events import Done, Started
from agents.chat.flights import Landing, NoAnswer, flights
from agents.chat.likeness import Likeness, Match, likeness_of
from agents.chat.memories import recall_for, shown_of
from agents.chat.metering import Meter
from agents.chat.opening import entry_of, longest_s, meter_of
from agents.chat.prompt import build_prompt, choose_summary, oldest_turn_in
from agents.chat.question import Question
from agents.chat.refusals import RateLimited
from agents.chat.replies import CachedReply
from agents.chat.routing import Route, route
from agents.chat.running import running_turns
from agents.chat.telling import Teller
from agents.chat.trace import Trace
from agents.chat.trimming import trimming_of
from agents.providers.base import ModelRequest
from agents.providers.chain import model_for
from agents.versions.live import Answering
from memory.api import FinishedTurn, OpenedTurn, Recalled, TurnState
from observability.api import headers_of
from observability.errors import ChatbotError
from observability.logs import in_words

log = structlog.get_logger(__name__)

_STORING_ATTEMPTS: Final = 5


class ChatTurn:
    """A question on its way to its answer: `open`, `reply`, and one of `finish`, `fail` and `abandon`."""

    def __init__(self, question: Question, answering: Answering) -> None:
        self.id: UUID = uuid7()
        self._question = question
        self._answering = answering
        self._total_s = 0.0  # known once it is known which models may answer
        self._route: Route | None = None
        self._classifier: Classifier | None = None
        self._started_at = asyncio.get_running_loop().time()
        self._teller = Teller(question, answering)
        self._entry: Entry | None = None
        self._entering: asyncio.Future[Entered] | None = None
        self._entered: Entered | None = None
        self._meter: Meter | None = None
        self._kept: CachedReply | None = None
        self._likeness: Likeness | None = None
        self._match: Match | None = None
        self._draft = Draft()
        self._trace = Trace()
        self._ended = False

    @property
    def headers(self) -> Mapping[str, str]:
        """The RateLimit headers, once it is known how the caller stands."""
        return headers_of(self._entered.verdict) if self._entered else {}

    async def open(self) -> Started:
        """Store the person's message, unless a limit refuses it.

        Raises:
            RateLimited: nothing is stored.
            BudgetSpent, BudgetBusy, PriceUnknown: the turn is stored, and has yet to `fail`.
        """
        self._route = await route(self._question, self._answering)
        self._answering, self._total_s = self._route.answering, longest_s(self._route.answering)
        self._entry = entry = await entry_of(self._question, self._answering, turn_id=self.id, seconds=self._total_s)
        self._entering = entering.submit(entry)
        self._entered = entered = await asyncio.shield(self._entering)
        self._trace.mark("open", cache="fresh" if self._question.wants_fresh else "miss" if entered.key else "off")
        if entered.verdict.refused:
            self._ended = True
            self._tell()
            raise RateLimited(entered.verdict, entered.verdict.refused)
        self._kept = entered.found.reply
        if self._kept is None:
            self._meter = meter_of(entry, entered, self._answering)
            self._likeness = likeness_of(
                self._question, self._answering, opened=entered.opened, key=entered.key, is_judged=self._route.asks
            )
            if self._flight_key and entered.found.leads:
                flights.lead(self._flight_key, str(self.id))
            if entered.refusal is not None:
                await self._meter.wait_for_room(entered.refusal)
                self._trace.mark("budget")
        return Started(self.id, entry.turn.session_id, self._answering.slug, self._answering.number, self.headers)

    @property
    def _opened(self) -> OpenedTurn:
        assert self._entered is not None
        assert self._entered.opened is not None
        return self._entered.opened

    @property
    def _flight_key(self) -> str | None:
        """The flight that this turn leads or waits for; None: neither."""
        return self._entered.key if self._entered and not self._question.wants_fresh else None

    async def reply(self) -> AsyncGenerator[str, None]:
        """Yield the reply in pieces, no longer in all than CHAT_MAX_REPLY_CHARS: a kept one, or the model's."""
        if self._kept is None and (key := self._flight_key) and not flights.is_led_by(key, str(self.id)):
            self._kept = await flights.wait(key, str(self.id), seconds=self._total_s)
            self._trace.mark("flight", cache="shared" if self._kept else "miss")
        if self._kept is None and self._likeness is not None:
            self._match = await self._likeness.find()
            self._kept = self._match.reply if self._match else None
            self._trace.mark("similar", cache="similar" if self._kept else "miss")
        if self._kept is not None:
            self._draft.parts.append(self._kept.reply)
            yield self._kept.reply
            return
        await self._decide()
        loop, draft = asyncio.get_running_loop(), self._draft
        draft.answer = model_answer = await model_for(self._answering.choices).start(await self._request())
        draft.first_token_ms = round((loop.time() - self._started_at) * 1000)
        left_chars = settings.CHAT_MAX_REPLY_CHARS
        try:
            async for text in model_answer:
                draft.was_cut = len(text) > left_chars
                draft.parts.append(text[:left_chars])
                yield text[:left_chars]
                left_chars -= len(text)
                if draft.was_cut:
                    break
        finally:
            await model_answer.aclose()

    async def _decide(self) -> None:
        """Ask the classifier, where the version's rule leaves it to that who answers."""
        if self._route is None or not self._route.asks:
            return
        assert self._meter is not None
        self._classifier = Classifier(self._answering, template=self._meter.template)
        self._route = self._route.decided(await self._classifier.ask(self._question.message))
        self._trace.mark("classify")
        self._answering = self._route.answering

    async def _request(self) -> ModelRequest:
        """Return what the model is asked: with memories and a summary, as far as they fit."""
        answering, message, draft = self._answering, self._question.message, self._draft
        opened = await choose_summary(answering, message=message, opened=self._opened)
        key = self._question.caller.key_id
        recalled = await recall_for(answering, message=message, opened=opened, key=key) if answering.memory_enabled else Recalled()
        self._trace.mark("recall", recall=recalled.outcome.value if answering.memory_enabled else "off")
        messages = await build_prompt(answering, message=message, recent=opened.recent, memories=recalled.passages, summary=opened.summary)
        oldest = oldest_turn_in(messages, opened=opened)
        if answering.summaries and oldest > opened.summarised_seq + 1:
            draft.summarise_before = oldest
        draft.trimming = trimming_of(self._opened, oldest=oldest, summary=opened.summary, messages=messages)
        draft.recalled = shown_of(recalled, sent={turn.id for turn in opened.recent if turn.seq >= oldest})
        self._trace.mark("prompt")
        assert self._meter is not None
        draft.messages = self._meter.messages = messages
        return ModelRequest(
            messages=messages,
            temperature=answering.temperature,
            top_p=answering.top_p,
            max_output_tokens=answering.max_output_tokens,
            stream=self._question.stream,
            deadline=asyncio.get_running_loop().time() + self._total_s,
            meter=self._meter,
        )

    async def finish(self) -> Done:
        """Store the complete reply, then tell of it."""
        assert self._entry is not None
        session_id, answering = self._entry.turn.session_id, self._answering
        if self._kept is not None:
            leaving_turn = self._leaving_with(self._kept)
            if leaving_turn:
                await self._store_or_go_on_storing(leaving_turn)
            self._ended = True
            self._tell()
            finished = finished_by(self.id, self._kept)
            matched = self._match.told_to(self._question.caller) if self._match else None
            return done_with(finished, session_id=session_id, answering=answering, kept=self._kept, matched=matched)
        leaving_turn = await self._leaving(self._draft.finished(self.id, TurnState.DONE))
        await self._store_or_go_on_storing(leaving_turn)
        return done_with(leaving_turn.finished, session_id=session_id, answering=answering, settled=leaving_turn.settled)

    def _leaving_with(self, kept: CachedReply) -> Leaving | None:
        """Return the end of a turn that was answered by another one; None where it ended when it was opened."""
        assert self._entry is not None
        if self._meter is None:
            return None
        # Without Redis nobody knew that another would answer, so a call may be promised that is not needed now.
        unused = self._meter.give_back()
        attempt = replace(self._meter.template, id=uuid7(), number=1 + len(unused))
        finished = self._trace.on(finished_by(self.id, kept), self._meter, self._route, self._answering)
        return Leaving(finished=finished, settled=unused, visit=self._entry.visit, cached=cached_by(attempt, kept))

    async def fail(self, error: ChatbotError) -> None:
        """Store that no answer came, or only a part of one."""
        if self._ended or self._entering is None:
            return
        state = TurnState.INTERRUPTED if self._draft.parts else TurnState.FAILED
        leaving_turn = await self._leaving(self._draft.finished(self.id, state, error_code=error.code))
        try:
            await self._store(leaving_turn)
        except DatabaseError:
            self._store_in_background(leaving_turn)

    def abandon(self, error: BaseException) -> None:
        """Store, in the background, what had arrived when the client left, the process had to stop, or we failed."""
        if self._ended or self._entering is None:
            return
        client_left = isinstance(error, asyncio.CancelledError | GeneratorExit) and not running_turns.stopping
        state = TurnState.CANCELLED if client_left else TurnState.INTERRUPTED if self._draft.parts else TurnState.FAILED
        code = "" if client_left else "stopped" if running_turns.stopping else "internal-error"
        self._ended = True
        running_turns.finish_in_background(self._abandon(self._draft.finished(self.id, state, error_code=code)))

    async def _abandon(self, finished: FinishedTurn) -> None:
        assert self._entering is not None
        assert self._entry is not None
        try:
            self._entered = entered = await self._entering
        except Exception:  # the turn was never stored: there is nothing to end
            return
        if entered.opened is None or entered.found.reply is not None:  # nor where it is ended already
            self._tell()
            return
        if self._meter is None:
            self._meter = meter_of(self._entry, entered, self._answering)
        await self._store_patiently(await self._leaving(finished))

    async def _leaving(self, finished: FinishedTurn) -> Leaving:
        """Return everything that is to be stored of the turn's end."""
        assert self._entry is not None
        finished = self._trace.on(await self._draft.estimated(finished), self._meter, self._route, self._answering)
        settled = await self._meter.settle(finished, cached_tokens=self._draft.cached_tokens) if self._meter else ()
        settled = self._draft.trimming.note_on(self._route.with_savings(settled) if self._route else settled)
        if self._classifier is not None:
            settled = (*await self._classifier.settled(), *settled)
        key = self._entered.key if self._entered else None
        keep = to_keep(finished, settled, answering=self._answering, key=key, turn_id=self.id)
        return Leaving(finished=finished, settled=settled, visit=self._entry.visit, keep=keep)

    async def _store(self, turn: Leaving) -> None:
        ran = False
        self._teller.expect(turn)
        try:
            ran = await leaving.submit(turn)
        finally:
            await self._land(turn, is_kept=ran and turn.keep is not None)
        self._ended = True
        if self._likeness is not None and turn.keep is not None:
            running_turns.finish_in_background(self._likeness.keep(turn.keep))
        self._tell(turn, ran=ran)

    def _tell(self, turn: Leaving | None = None, *, ran: bool = True) -> None:
        if self._entry and self._entered:
            self._teller.tell(self._entry, self._entered, turn, ran=ran)

    async def _land(self, turn: Leaving, *, is_kept: bool) -> None:
        """Tell those who wait for this answer."""
        key, turn_id, entered = self._flight_key, str(self.id), self._entered
        if key is None or entered is None or not (entered.found.leads or flights.is_led_by(key, turn_id)):
            return
        has_left = turn.finished.state is TurnState.CANCELLED or turn.finished.error_code == "stopped"
        landing: Landing = turn.keep.reply if turn.keep else NoAnswer.LEFT if has_left else NoAnswer.FAILED
        await flights.land(key, turn_id, landing, is_kept=is_kept)

    async def _store_or_go_on_storing(self, turn: Leaving) -> None:
        try:
            await self._store(turn)
        except DatabaseError:
            self._store_in_background(turn)
            raise

    def _store_in_background(self, turn: Leaving) -> None:
        self._ended = True
        running_turns.finish_in_background(self._store_patiently(turn))

    async def _store_patiently(self, turn: Leaving) -> None:
        for attempt in range(_STORING_ATTEMPTS):
            try:
                await self._store(turn)
            except DatabaseError as error:
                log.warning("turn not stored yet", message_id=str(self.id), attempt=attempt + 1, reason=in_words(error))
                await asyncio.sleep(2**attempt * 0.5)
            else:
                return
        log.error("turn not stored; it will be marked as left behind", message_id=str(self.id))
