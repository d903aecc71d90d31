"""The visits that a turn makes to the stores: one before its model is called, one after, and one for every further attempt.

Each function takes a whole batch, because turns that come within the same few milliseconds share a transaction and a round trip
to Redis. Rows are locked in one order everywhere (conversations, turns, then budgets' periods), so two batches never deadlock.

Budgets are those that the process last read: whoever hands a call to a batch has awaited `budgets_now.get()` just before, so none of
a batch is promised to budgets older than that, however long ago its turn began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from agents.chat.replies import MISSED, CachedReply, Looked, ToKeep, keep, look
from memory.api import FinishedTurn, NewTurn, OpenedTurn, TurnState, finish_turns, open_turns
from observability.api import (
    GroupCommit,
    NewAttempt,
    Refusal,
    SettledAttempt,
    Verdict,
    Visit,
    admit,
    budgets_now,
    leave,
    promise_attempts,
    recording,
    run_together,
    settle_attempts,
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A turn about to begin.

    Attributes:
        attempt: its first call of a model, should it come to that.
        key_of: the reply cache's key, once what was said before is known; None: not to be cached.
        wants_fresh: the caller wants no kept answer.
    """

    turn: NewTurn
    attempt: NewAttempt
    visit: Visit
    key_of: Callable[[OpenedTurn], str | None]
    wants_fresh: bool = False


class Entered(msgspec.Struct, kw_only=True):
    """How a turn began: filled in by its first visit, then left alone.

    Attributes:
        opened: None where a rate limit refuses it (`verdict.refused`): then nothing is stored.
        key: under which its answer is to be kept; None: not at all.
        found: a kept answer, which has ended the turn already, or whether this turn is to call the model.
        attempt: the first attempt, in the ledger and promised by all budgets; None where none is written.
        refusal: the budget that refuses it.
    """

    verdict: Verdict
    opened: OpenedTurn | None = None
    key: str | None = None
    found: Looked = MISSED
    attempt: NewAttempt | None = None
    refusal: Refusal | None = None


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that has ended, with how its attempts did; `cached`: another turn's answer, and what that saved; `keep`: its own answer."""

    finished: FinishedTurn
    settled: Sequence[SettledAttempt]
    visit: Visit
    cached: tuple[NewAttempt, Decimal] | None = None
    keep: ToKeep | None = None


def enter_turns(entries: Sequence[Entry]) -> list[Entered]:
    """Count the turns against their limits, store them, look for kept answers, and promise the calls of the rest their worst case."""
    verdicts = admit([entry.visit for entry in entries])
    entered = [Entered(verdict=verdict) for verdict in verdicts]
    going = [place for place, verdict in enumerate(verdicts) if verdict.refused is None]
    try:
        if going:
            _enter(entries, entered, going)
    except BaseException:
        leave([(entries[place].visit, 0) for place in going])  # or their places would stay taken until their leases end
        raise
    return entered


def _enter(entries: Sequence[Entry], entered: list[Entered], going: Sequence[int]) -> None:
    for place, opened in zip(going, open_turns([entries[place].turn for place in going]), strict=True):
        it, entry = entered[place], entries[place]
        it.opened, it.key = opened, entry.key_of(opened)
        it.attempt = entry.attempt
        it.attempt.conversation_id, it.attempt.subject_id = opened.conversation_id, opened.subject_id
    _look(entries, entered, going)
    _finish_found([it for it in entered if it.found.reply])
    leave([(entries[place].visit, 0) for place in going if entered[place].found.reply])
    _promise(entries, entered, [place for place in going if not entered[place].found.reply])


def _look(entries: Sequence[Entry], entered: list[Entered], going: Sequence[int]) -> None:
    found = look(
        [entered[place].key for place in going],
        turns=[entries[place].visit.id for place in going],
        fresh=[entries[place].wants_fresh for place in going],
    )
    for place, looked in zip(going, found, strict=True):
        entered[place].found = looked


def _finish_found(entered: Sequence[Entered]) -> None:
    """End turns whose answer was kept: they are stored as whole as any other, in the transaction that opened them."""
    answered = [(it.attempt, it.found.reply) for it in entered if it.attempt and it.found.reply]
    if not answered:
        return
    finish_turns(
        [finished_by(attempt.turn_id, reply) for attempt, reply in answered if attempt.turn_id],
        recording([cached_by(attempt, reply) for attempt, reply in answered]),
    )


def _promise(entries: Sequence[Entry], entered: list[Entered], places: Sequence[int]) -> None:
    # Who waits for another's answer calls no model yet.
    calling = [place for place in places if entered[place].found.leads]
    for place in places:
        if place not in calling:
            entered[place].attempt = None
    attempts = [attempt for place in calling if (attempt := entered[place].attempt)]
    refusals = promise_attempts(attempts, budgets=budgets_now.latest())
    for place, refusal in zip(calling, refusals, strict=True):
        if refusal is not None:
            entered[place].attempt, entered[place].refusal = None, refusal


def finished_by(turn_id: UUID, reply: CachedReply) -> FinishedTurn:
    """Return how a turn ends that is answered with a kept answer."""
    return FinishedTurn(
        id=turn_id,
        state=TurnState.DONE,
        reply=reply.reply,
        provider=reply.provider,
        model=reply.model,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )


def cached_by(attempt: NewAttempt, reply: CachedReply) -> tuple[NewAttempt, Decimal]:
    """Return the line that tells in the ledger what a kept answer has saved."""
    return replace(attempt, provider=reply.provider, model=reply.model), reply.cost


def promise_more(attempts: Sequence[NewAttempt]) -> list[Refusal | None]:
    """Promise and write further attempts of turns, or such as were refused a moment ago; return which budget refuses it, if one does."""
    return promise_attempts(attempts, budgets=budgets_now.latest())


def leave_turns(turns: Sequence[Leaving]) -> list[bool]:
    """Store how the turns ended and what they cost, free their places, and keep their answers; tell whether each still ran."""
    finished = finish_turns([turn.finished for turn in turns])
    if cached := [turn.cached for turn, ran in zip(turns, finished, strict=True) if turn.cached and ran]:
        run_together(recording(cached))
    if settled := [attempt for turn in turns for attempt in turn.settled]:
        settle_attempts(settled)
    # A turn may be stored twice, where its client leaves at its very end: its tokens count once.
    leave([(turn.visit, sum(it.tokens for it in turn.settled) if ran else 0) for turn, ran in zip(turns, finished, strict=True)])
    if kept := [turn.keep for turn, ran in zip(turns, finished, strict=True) if turn.keep and ran]:  # not of one that was erased
        keep(kept)
    return finished


entering: Final[GroupCommit[Entry, Entered]] = GroupCommit(enter_turns)
promising: Final[GroupCommit[NewAttempt, Refusal | None]] = GroupCommit(promise_more)
settling: Final[GroupCommit[SettledAttempt, bool]] = GroupCommit(settle_attempts)
leaving: Final[GroupCommit[Leaving, bool]] = GroupCommit(leave_turns)
