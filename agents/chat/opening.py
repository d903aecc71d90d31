"""What a turn brings to its first visit to the stores: the message, the rules that count it, and what its model may cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from django.conf import settings
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from agents.access import resolve_session, subject_name
from agents.chat.bursts import Entered, Entry
from agents.chat.metering import Meter, most_prompt_tokens, price_of
from agents.chat.prompt import recent_chars
from agents.chat.question import Question
from agents.chat.replies import key_of, may_be_cached
from agents.versions.live import Answering
from memory.api import NewTurn, OpenedTurn
from observability.api import AttemptKind, NewAttempt, Visit, budgets_now, limits, rules_for

# A turn of a process that died is given up this long after its model had to be done.
_GRACE: Final = timedelta(seconds=30)


def longest_s(answering: Answering) -> float:
    """Return how long an answer may take: each model in the chain has its own time, as one that hangs must not use up the others'.

    So has the cheaper model, where a classifier may yet put it before them.
    """
    cheaper = [answering.simple] if answering.classifier and answering.simple and answering.simple not in answering.choices else []
    return sum(choice.provider.total_timeout_s for choice in (*cheaper, *answering.choices))


async def entry_of(question: Question, answering: Answering, *, turn_id: UUID, seconds: float) -> Entry:
    """Return the turn that `question` begins; its answer may take `seconds`.

    Raises:
        django.db.Error: limits, budgets and prices were never read, and cannot be.
    """
    now = datetime.now(UTC)
    deadline_at = now + timedelta(seconds=seconds) + _GRACE
    turn = _turn(question, answering, turn_id=turn_id, now=now, deadline_at=deadline_at)
    rules = rules_for(
        await limits.get(),
        address=question.address,
        session=f"{turn.owner}/{turn.subject}" if question.address else "",
        key=question.caller.key_id,
        agent=answering.slug if question.address else "",
    )
    attempt = await _first_attempt(question, answering, turn=turn)
    await budgets_now.get()  # last: the batch promises to these
    return Entry(
        turn=turn,
        attempt=attempt,
        visit=Visit(id=str(turn_id), rules=rules, lease_s=(deadline_at - now).total_seconds()),
        key_of=partial(_key_of, question, answering),
        wants_fresh=question.wants_fresh,
    )


def meter_of(entry: Entry, entered: Entered, answering: Answering) -> Meter:
    """Return what keeps account of the calls of a turn that has been stored."""
    template = entered.attempt or entry.attempt
    if entered.opened is not None:
        template = replace(template, conversation_id=entered.opened.conversation_id, subject_id=entered.opened.subject_id)
    return Meter(template, prompt_tokens=answering.prompt_budget_tokens, opened=entered.attempt is not None)


def _turn(question: Question, answering: Answering, *, turn_id: UUID, now: datetime, deadline_at: datetime) -> NewTurn:
    owner, session_id = resolve_session(question.caller, question.session_id)
    return NewTurn(
        id=turn_id,
        owner=owner,
        subject=subject_name(question.caller, user=question.user, session_id=session_id),
        session_id=session_id,
        agent=answering.slug,
        version=answering.number,
        message=question.message,
        metadata=question.metadata,
        request_id=question.request_id,
        created_at=now,
        deadline_at=deadline_at,
        recent_turns=settings.CHAT_HISTORY_TURNS,
        recent_chars=recent_chars(answering),
        remember=answering.memory_enabled,
        read_facts=answering.facts_by_model,
    )


async def _first_attempt(question: Question, answering: Answering, *, turn: NewTurn) -> NewAttempt:
    choice = answering.choices[0]
    return NewAttempt(
        id=uuid7(),
        turn_id=turn.id,
        kind=AttemptKind.CHAT,
        agent=answering.slug,
        version=answering.number,
        key=question.caller.key_id,
        provider=choice.provider.slug,
        model=choice.model,
        price=await price_of(choice),
        request_id=question.request_id,
        started_at=turn.created_at,
        deadline_at=turn.deadline_at,
        worst_prompt_tokens=await most_prompt_tokens(choice, answering.prompt_budget_tokens),
        worst_completion_tokens=answering.max_output_tokens,
    )


def _key_of(question: Question, answering: Answering, opened: OpenedTurn) -> str | None:
    if not may_be_cached(answering, is_draft=question.draft):
        return None
    return key_of(answering, caller=question.caller, user=question.user, message=question.message, opened=opened)
