"""What became of a turn, told once and in one place to whoever watches: the log, and the metrics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog

from agents.chat.bursts import Entered, Entry, Leaving, cached_by, finished_by
from agents.chat.ending import cost_of
from agents.chat.question import Question
from agents.chat.refusals import RateLimited
from agents.versions.live import Answering
from memory.api import TurnState
from observability.api import SavedBy, SettledAttempt, count_turn
from observability.logs import note
from observability.tracing import NOTHING, Attribute, begin_span, go_on_within

log = structlog.get_logger(__name__)

REFUSED: Final = "refused"
"""The outcome of a turn that a rate limit refused; that of every other is its `TurnState`."""
MOST_LOGGED_CHARS: Final = 2000
"""Of a message, and of a reply, where the log is to hold them."""
# Keys and tokens of this server and of the usual vendors. Nobody's debugging needs them.
_SECRETS: Final = re.compile(
    r"\bBearer\s+\S+|\b(?:sk|pk|rk|gsk|xai|ghp|ut)[-_][\w.-]{8,}|\b[A-Za-z0-9]{8}\.[A-Za-z0-9]{32,}", re.IGNORECASE
)
_FAULTY: Final = (TurnState.FAILED, TurnState.INTERRUPTED)


class EndedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """All that is to be told of a turn whose end is stored. Durations in milliseconds.

    Attributes:
        key: the API key's public id; "" without one.
        session: the conversation's number, which opens nothing, unlike a session id; 0: a refused turn was never stored.
        provider, model: who gave the reply, or a kept one's author; "" where nobody did.
        outcome: a `TurnState`'s value, or REFUSED.
        error_code: of `docs/errors.md`; "" where all went well, and where the client left.
        refused_by: the scope of the rate limit that refused the turn.
        attempts: the calls of models, in their order; none for a kept answer.
        prompt_tokens, cached_prompt_tokens, completion_tokens: what all attempts used together, as the ledger has it.
        cost_usd: of all attempts; None: a price is unknown.
        looked_up: the reply could have been a kept one, and was looked for.
        cached: the reply was given before, and no model was called for it.
        saved_by: what saved `saved_usd`: the cache, or a cheaper model.
        latency_ms: from the question until its end was stored.
        first_token_ms: from the question until the model's first words; None where there were none.
        recalled: how many memories the prompt held.
        log_messages_until: until when an operator lets this agent's log hold what is said.
        message, reply: what was said. Nobody else's business than that.
    """

    message_id: UUID
    request_id: str
    agent: str
    version: int
    key: str
    session: int
    started_at: datetime
    streamed: bool
    outcome: str
    latency_ms: int
    error_code: str = ""
    refused_by: str = ""
    provider: str = ""
    model: str = ""
    finish_reason: str = ""
    attempts: Sequence[SettledAttempt] = ()
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    is_estimated: bool = False
    cost_usd: Decimal | None = Decimal(0)
    saved_usd: Decimal = Decimal(0)
    saved_by: SavedBy = SavedBy.NOTHING
    looked_up: bool = False
    cached: bool = False
    first_token_ms: int | None = None
    recalled: int = 0
    log_messages_until: datetime | None = None
    message: str = ""
    reply: str = ""

    def __repr__(self) -> str:
        return f"EndedTurn({self.message_id}, {self.outcome})"  # without what was said

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # of which msgspec would make one with everything in it
        return [("message_id", self.message_id), ("outcome", self.outcome)]


class Teller:
    """Tells what became of one turn, once."""

    def __init__(self, question: Question, answering: Answering) -> None:
        self._question = question
        self._answering = answering
        self._started_at = asyncio.get_running_loop().time()
        self._submitted: Leaving | None = None
        self._has_told = False
        self._span = begin_span(f"invoke_agent {answering.slug}")
        go_on_within(self._span)
        note(agent=answering.slug, version=answering.number)

    def expect(self, turn: Leaving) -> None:
        """Note that `turn` is about to be stored as the end. Where two are, the first one is what was stored."""
        self._submitted = self._submitted or turn

    def tell(self, entry: Entry, entered: Entered, turn: Leaving | None = None, *, ran: bool = True) -> None:
        """Tell of a turn whose end is stored.

        Args:
            turn: its end; None where it ended as it was opened: a limit refused it, or its answer was kept.
            ran: the turn still ran when `turn` was stored; else an earlier end of it was.
        """
        if self._has_told:
            return
        self._has_told = True
        latency_ms = round((asyncio.get_running_loop().time() - self._started_at) * 1000)
        ended = _ended(self._question, self._answering, entry, entered, turn if ran else self._submitted, latency_ms=latency_ms)
        tell(ended)
        if self._span is not NOTHING:
            self._span.note(attributes_of(ended))
            self._span.end(error=ended.error_code if ended.outcome in _FAULTY else "")


def tell(turn: EndedTurn) -> None:
    """Tell everybody who watches: the log, and the metrics."""
    write = log.warning if turn.outcome in _FAULTY else log.info
    line = line_of(turn)
    write("turn ended", **line, **_what_was_said(turn))
    note(**line)
    count_turn(turn)


def line_of(turn: EndedTurn) -> dict[str, Any]:
    """Return the fields of the turn's line in the log, in `docs/logs.md`; what is unknown, or is not, is left out."""
    line = {
        "request_id": turn.request_id,
        "message_id": str(turn.message_id),
        "agent": turn.agent,
        "version": turn.version,
        "session": turn.session or None,
        "key": turn.key,
        "outcome": turn.outcome,
        "error_code": turn.error_code,
        "refused_by": turn.refused_by,
        "provider": turn.provider,
        "model": turn.model,
        "finish_reason": turn.finish_reason,
        "attempts": len(turn.attempts),
        "prompt_tokens": turn.prompt_tokens,
        "cached_prompt_tokens": turn.cached_prompt_tokens,
        "completion_tokens": turn.completion_tokens,
        "cost_usd": None if turn.cost_usd is None else float(turn.cost_usd),
        "saved_usd": float(turn.saved_usd),
        "saved_by": str(turn.saved_by),
        "cached": turn.cached,
        "recalled": turn.recalled,
        "streamed": turn.streamed,
        "first_token_ms": turn.first_token_ms,
        "latency_ms": turn.latency_ms,
    }
    return {name: value for name, value in line.items() if value is not None and value != ""}


def _what_was_said(turn: EndedTurn) -> dict[str, str]:
    """Return the message and the reply for the log, without keys, while somebody who may wants to see them there."""
    if turn.log_messages_until is None or turn.log_messages_until <= datetime.now(UTC):
        return {}
    said = {"message": turn.message, "reply": turn.reply}
    return {name: _SECRETS.sub("(a secret)", text)[:MOST_LOGGED_CHARS] for name, text in said.items()}


def attributes_of(turn: EndedTurn) -> dict[str, Attribute]:
    """Return the attributes of the turn's span, in `docs/logs.md`."""
    return {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": turn.agent,
        "gen_ai.agent.version": str(turn.version),
        "gen_ai.conversation.id": str(turn.session or ""),
        "gen_ai.request.model": turn.model,
        "gen_ai.usage.input_tokens": turn.prompt_tokens,
        "gen_ai.usage.output_tokens": turn.completion_tokens,
        "chatbot.message_id": str(turn.message_id),
        "chatbot.outcome": turn.outcome,
        "chatbot.cached": turn.cached,
        "chatbot.cost_usd": None if turn.cost_usd is None else float(turn.cost_usd),
        "chatbot.saved_usd": float(turn.saved_usd),
        "chatbot.first_token_ms": turn.first_token_ms,
    }


def _ended(question: Question, answering: Answering, entry: Entry, entered: Entered, turn: Leaving | None, *, latency_ms: int) -> EndedTurn:
    opened, kept = entered.opened, entered.found.reply
    facts: dict[str, Any] = {
        "message_id": entry.turn.id,
        "request_id": question.request_id,
        "agent": answering.slug,
        "version": answering.number,
        "key": question.caller.key_id,
        "session": opened.conversation_id if opened else 0,
        "started_at": entry.turn.created_at,
        "streamed": question.stream,
        "latency_ms": latency_ms,
        "looked_up": entered.key is not None and not question.wants_fresh,
        "message": question.message,
        "log_messages_until": answering.log_messages_until,
    }
    if turn is None and kept is not None:
        turn = Leaving(finished=finished_by(entry.turn.id, kept), settled=(), visit=entry.visit, cached=cached_by(entry.attempt, kept))
    if turn is None:
        refused = entered.verdict.refused
        return EndedTurn(**facts, outcome=REFUSED, error_code=RateLimited.code, refused_by=refused.rule.scope if refused else "")
    return EndedTurn(**facts, **_how_it_ended(turn))


def _how_it_ended(turn: Leaving) -> dict[str, Any]:
    finished, settled = turn.finished, turn.settled
    saving = next((attempt.saved_by for attempt in settled if attempt.saved_by), SavedBy.NOTHING)
    return {
        "outcome": finished.state.value,
        "error_code": finished.error_code,
        "provider": finished.provider,
        "model": finished.model,
        "finish_reason": finished.finish_reason,
        "attempts": settled,
        "prompt_tokens": sum(attempt.prompt_tokens or 0 for attempt in settled),
        "cached_prompt_tokens": sum(attempt.cached_tokens or 0 for attempt in settled),
        "completion_tokens": sum(attempt.completion_tokens or 0 for attempt in settled),
        "is_estimated": any(attempt.is_estimated for attempt in settled),
        "cost_usd": cost_of(settled),
        "saved_usd": turn.cached[1] if turn.cached else sum((attempt.saved_usd for attempt in settled), Decimal(0)),
        "saved_by": SavedBy.CACHE if turn.cached else saving,
        "cached": turn.cached is not None,
        "first_token_ms": finished.first_token_ms,
        "recalled": len(finished.recalled),
        "reply": finished.reply,
    }
