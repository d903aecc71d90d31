"""How a turn ended, as it is stored, kept for others, and told to its caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from msgspec.structs import replace

from agents.chat.events import Done, Matched
from agents.chat.metering import estimated_usage
from agents.chat.replies import CachedReply, ToKeep
from agents.chat.trimming import NOTHING_LEFT_OUT, Trimming
from agents.providers.base import Message, ModelAnswer
from agents.versions.live import Answering
from memory.api import FinishedTurn, RecalledPassage, TurnState
from observability.api import SettledAttempt


@dataclass(slots=True)
class Draft:
    """What there is of an answer so far.

    Attributes:
        messages: what the model was sent.
        parts: the pieces of the reply; a kept one is a single piece.
        was_cut: the reply reached CHAT_MAX_REPLY_CHARS.
        trimming: what of the conversation so far it was not sent.
        summarise_before: the oldest turn in the prompt, where earlier ones are to be summarised.
    """

    messages: Sequence[Message] = ()
    parts: list[str] = field(default_factory=list)
    answer: ModelAnswer | None = None
    first_token_ms: int | None = None
    was_cut: bool = False
    trimming: Trimming = NOTHING_LEFT_OUT
    summarise_before: int | None = None
    recalled: tuple[RecalledPassage, ...] = ()

    @property
    def cached_tokens(self) -> int:
        """Of the prompt, what the provider had in its cache."""
        return self.answer.usage.cached_tokens if self.answer and self.answer.usage else 0

    def finished(self, turn_id: UUID, state: TurnState, *, error_code: str = "") -> FinishedTurn:
        """Return how the turn ends; where the provider told no usage, without counts: `estimated` adds them."""
        answer = self.answer
        usage = answer.usage if answer else None
        finish_reason = "length" if self.was_cut else answer.finish_reason if answer else ""
        return FinishedTurn(
            id=turn_id,
            state=state,
            reply="".join(self.parts),
            provider=answer.provider if answer else "",
            model=answer.model if answer else "",
            finish_reason=finish_reason if state is TurnState.DONE else "",
            error_code=error_code,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            usage_estimated=usage is None and answer is not None,
            first_token_ms=self.first_token_ms,
            summarise_before=self.summarise_before,
            recalled=self.recalled,
        )

    async def estimated(self, finished: FinishedTurn) -> FinishedTurn:
        """Return `finished` with our own counts where the provider told none."""
        if not finished.usage_estimated or finished.prompt_tokens is not None:
            return finished
        used = await estimated_usage(self.messages, finished.reply, provider=finished.provider, model=finished.model)
        return replace(finished, prompt_tokens=used.prompt_tokens, completion_tokens=used.completion_tokens)


def to_keep(
    finished: FinishedTurn, settled: Sequence[SettledAttempt], *, answering: Answering, key: str | None, turn_id: UUID
) -> ToKeep | None:
    """Return the answer for the cache: a whole one, of the first model of the chain, and not drawn from memories."""
    first = answering.choices[0]
    is_whole = finished.state is TurnState.DONE and finished.finish_reason == "stop" and bool(finished.reply) and not finished.recalled
    is_first = (finished.provider, finished.model) == (first.provider.slug, first.model)
    if key is None or not (is_whole and is_first and settled):
        return None
    cost_usd = settled[-1].cost_usd
    reply = CachedReply(
        reply=finished.reply,
        provider=finished.provider,
        model=finished.model,
        finish_reason=finished.finish_reason,
        prompt_tokens=finished.prompt_tokens or 0,
        completion_tokens=finished.completion_tokens or 0,
        cost_usd=None if cost_usd is None else str(cost_usd),
    )
    return ToKeep(key=key, turn_id=str(turn_id), reply=reply, seconds=answering.reply_cache_s)


def cost_of(settled: Sequence[SettledAttempt]) -> Decimal | None:
    """Return what a turn's attempts cost together; None: the price of one is unknown."""
    costs = [attempt.cost_usd for attempt in settled]
    return None if None in costs else sum(filter(None, costs), Decimal(0))


def done_with(
    finished: FinishedTurn,
    *,
    session_id: str,
    answering: Answering,
    settled: Sequence[SettledAttempt] = (),
    kept: CachedReply | None = None,
    matched: Matched | None = None,
) -> Done:
    """Return what the caller is told at the end; `kept`: the answer was given before, and nothing was called; `matched`: to what."""
    return Done(
        message_id=finished.id,
        session_id=session_id,
        agent=answering.slug,
        version=answering.number,
        reply=finished.reply,
        model=finished.model,
        finish_reason=finished.finish_reason,
        prompt_tokens=finished.prompt_tokens or 0,
        completion_tokens=finished.completion_tokens or 0,
        cost_usd=cost_of(settled),
        saved_usd=kept.cost if kept else sum((attempt.saved_usd for attempt in settled), Decimal(0)),
        cached=kept is not None,
        matched=matched,
    )
