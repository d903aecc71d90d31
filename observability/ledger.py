"""The ledger: every call of a model, written before it and settled after it, many at a time.

Every function here runs inside a transaction that the caller began and takes a whole batch, because turns opened or closed
within the same few milliseconds share a transaction (`observability.bursts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db import connection

from observability.budgets import Claim, Refusal, reserve, settle_reservations
from observability.models import AttemptKind, AttemptOutcome, Budget, SavedBy
from observability.prices import Price
from observability.statements import Statement

# By these numbers the sums know what they have seen (`observability.rollups`).
NUMBER: Final = """
    pg_current_xact_id()::text::bigint + coalesce((SELECT xid_offset FROM observability_rollupstate WHERE id = 1), 0)
"""
_OPEN: Final = """
    INSERT INTO observability_attempt (id, turn_id, number, kind, agent, version, key, subject_id, conversation_id, provider, model,
                                       request_id, started_at, deadline_at, outcome, error_code, worst_prompt_tokens,
                                       worst_completion_tokens, is_estimated, input_usd, cached_input_usd, output_usd, saved_usd)
    SELECT id, turn_id, number, kind, agent, version, key, subject_id, conversation_id, provider, model,
           request_id, started_at, deadline_at, 'running', '', worst_prompt_tokens, worst_completion_tokens, false, input_usd,
           cached_input_usd, output_usd, 0
    FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::text[], %s::int[], %s::text[], %s::bigint[], %s::bigint[],
                %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::int[], %s::int[], %s::numeric[],
                %s::numeric[], %s::numeric[])
      AS new (id, turn_id, number, kind, agent, version, key, subject_id, conversation_id, provider, model, request_id, started_at,
              deadline_at, worst_prompt_tokens, worst_completion_tokens, input_usd, cached_input_usd, output_usd)
"""
_SETTLE: Final = f"""
    UPDATE observability_attempt attempt
    SET outcome = done.outcome, error_code = done.error_code, provider = done.provider, model = done.model,
        prompt_tokens = done.prompt_tokens, cached_tokens = done.cached_tokens, completion_tokens = done.completion_tokens,
        counted_prompt_tokens = done.counted_prompt_tokens, trimmed_tokens = done.trimmed_tokens, is_estimated = done.is_estimated,
        input_usd = done.input_usd, cached_input_usd = done.cached_input_usd,
        output_usd = done.output_usd, cost_usd = done.cost_usd, saved_usd = done.saved_usd, saved_by = done.saved_by,
        first_token_ms = done.first_token_ms, latency_ms = done.latency_ms, settled_at = clock_timestamp(), settled_xid = {NUMBER}
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::int[], %s::int[], %s::bool[], %s::int[],
                %s::int[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], %s::text[], %s::int[], %s::int[])
      AS done (id, outcome, error_code, provider, model, prompt_tokens, cached_tokens, completion_tokens, is_estimated,
               counted_prompt_tokens, trimmed_tokens, input_usd, cached_input_usd, output_usd, cost_usd, saved_usd, saved_by,
               first_token_ms, latency_ms)
    WHERE attempt.id = done.id AND attempt.outcome = 'running'
    RETURNING attempt.id
"""  # noqa: S608 - constants
# An answer from the reply cache: begun and settled at once, promised by nobody.
_RECORD: Final = f"""
    INSERT INTO observability_attempt (id, turn_id, number, kind, agent, version, key, subject_id, conversation_id, provider, model,
                                       request_id, started_at, deadline_at, outcome, error_code, worst_prompt_tokens,
                                       worst_completion_tokens, is_estimated, cost_usd, saved_usd, saved_by, latency_ms, settled_at,
                                       settled_xid)
    SELECT id, turn_id, number, kind, agent, version, key, subject_id, conversation_id, provider, model,
           request_id, started_at, deadline_at, 'cached', '', 0, 0, false, 0, saved_usd,
           '{SavedBy.CACHE.value}', 0, clock_timestamp(), {NUMBER}
    FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::text[], %s::int[], %s::text[], %s::bigint[], %s::bigint[],
                %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::numeric[])
      AS new (id, turn_id, number, kind, agent, version, key, subject_id, conversation_id, provider, model, request_id, started_at,
              deadline_at, saved_usd)
"""  # noqa: S608 - constants


class NewAttempt(msgspec.Struct, kw_only=True):
    """A model about to be called. Whose conversation it is, is filled in once its turn is stored; nothing else ever changes.

    Attributes:
        price: what the model costs now; None: unknown.
        worst_prompt_tokens, worst_completion_tokens: the most the call may use; what it is counted as if its process dies.
    """

    id: UUID
    kind: AttemptKind
    started_at: datetime
    deadline_at: datetime
    price: Price | None
    worst_prompt_tokens: int
    worst_completion_tokens: int
    turn_id: UUID | None = None
    number: int = 1
    agent: str = ""
    version: int = 0
    key: str = ""
    subject_id: int = 0
    conversation_id: int = 0
    provider: str = ""
    model: str = ""
    request_id: str = ""

    @property
    def worst_tokens(self) -> int:
        return self.worst_prompt_tokens + self.worst_completion_tokens

    @property
    def worst_price(self) -> Price | None:
        """The price at which it costs the most; None: unknown."""
        if self.price is None:
            return None
        return self.price.dearest(prompt_tokens=self.worst_prompt_tokens, completion_tokens=self.worst_completion_tokens)

    @property
    def worst_usd(self) -> Decimal | None:
        """What it may cost at worst; None where the price is unknown."""
        if self.price is None:
            return None
        return self.price.most(prompt_tokens=self.worst_prompt_tokens, completion_tokens=self.worst_completion_tokens)

    @property
    def claim(self) -> Claim:
        """What it asks budgets for."""
        return Claim(
            attempt_id=self.id,
            agent=self.agent,
            key=self.key,
            subject_id=self.subject_id,
            usd=self.worst_usd,
            tokens=self.worst_tokens,
            at=self.started_at,
        )


class SettledAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended. Tokens are None where nothing was used; durations in milliseconds.

    Attributes:
        counted_prompt_tokens: the prompt as we count it, where the vendor told its own count too (`observability.calibration`).
        trimmed_tokens: about how many of the conversation so far the prompt left out.
    """

    id: UUID
    outcome: AttemptOutcome
    error_code: str = ""
    provider: str = ""
    model: str = ""
    price: Price | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    counted_prompt_tokens: int | None = None
    trimmed_tokens: int = 0
    is_estimated: bool = False
    saved_usd: Decimal = Decimal(0)
    saved_by: SavedBy = SavedBy.NOTHING
    first_token_ms: int | None = None
    latency_ms: int | None = None

    @property
    def tokens(self) -> int:
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)

    @property
    def held_price(self) -> Price | None:
        """The price that held for a prompt of this length; None: unknown."""
        return self.price.at(self.prompt_tokens or 0) if self.price else None

    @property
    def cost_usd(self) -> Decimal | None:
        """What it cost; 0 where it used nothing, None where it used something of unknown price."""
        if not self.tokens:
            return Decimal(0)
        if self.price is None:
            return None
        return self.price.cost(
            prompt_tokens=self.prompt_tokens or 0, cached_tokens=self.cached_tokens or 0, completion_tokens=self.completion_tokens or 0
        )


def promise_attempts(attempts: Sequence[NewAttempt], *, budgets: Sequence[Budget]) -> list[Refusal | None]:
    """Promise each attempt its worst case in all `budgets` that apply and write it; return which budget refuses it, if one does."""
    refusals = reserve([attempt.claim for attempt in attempts], budgets=budgets)
    if granted := [attempt for attempt, refusal in zip(attempts, refusals, strict=True) if refusal is None]:
        open_attempts(granted)
    return refusals


def open_attempts(attempts: Sequence[NewAttempt]) -> None:
    """Write `attempts` as running."""
    with connection.cursor() as cursor:
        cursor.execute(
            _OPEN,
            [
                *_columns(attempts),
                [attempt.worst_prompt_tokens for attempt in attempts],
                [attempt.worst_completion_tokens for attempt in attempts],
                *_prices([attempt.worst_price for attempt in attempts]),
            ],
        )


def recording(attempts: Sequence[tuple[NewAttempt, Decimal]]) -> Statement:
    """Return what writes answers from the reply cache: by whose question, of which model, and how many US dollars each has saved."""
    return _RECORD, [*_columns([attempt for attempt, _ in attempts]), [saved_usd for _, saved_usd in attempts]]


def _columns(attempts: Sequence[NewAttempt]) -> list[list[Any]]:
    return [
        [attempt.id for attempt in attempts],
        [attempt.turn_id for attempt in attempts],
        [attempt.number for attempt in attempts],
        [attempt.kind.value for attempt in attempts],
        [attempt.agent for attempt in attempts],
        [attempt.version for attempt in attempts],
        [attempt.key for attempt in attempts],
        [attempt.subject_id for attempt in attempts],
        [attempt.conversation_id for attempt in attempts],
        [attempt.provider for attempt in attempts],
        [attempt.model for attempt in attempts],
        [attempt.request_id for attempt in attempts],
        [attempt.started_at for attempt in attempts],
        [attempt.deadline_at for attempt in attempts],
    ]


def settle_attempts(attempts: Sequence[SettledAttempt]) -> list[bool]:
    """Settle `attempts` and give back what was promised to them; tell for each whether it was still running.

    An attempt is settled once: by its process, or by the reaper.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _SETTLE,
            [
                [attempt.id for attempt in attempts],
                [attempt.outcome.value for attempt in attempts],
                [attempt.error_code for attempt in attempts],
                [attempt.provider for attempt in attempts],
                [attempt.model for attempt in attempts],
                [attempt.prompt_tokens for attempt in attempts],
                [attempt.cached_tokens for attempt in attempts],
                [attempt.completion_tokens for attempt in attempts],
                [attempt.is_estimated for attempt in attempts],
                [attempt.counted_prompt_tokens for attempt in attempts],
                [attempt.trimmed_tokens for attempt in attempts],
                *_prices([attempt.held_price for attempt in attempts]),
                [attempt.cost_usd for attempt in attempts],
                [attempt.saved_usd for attempt in attempts],
                [attempt.saved_by.value for attempt in attempts],
                [attempt.first_token_ms for attempt in attempts],
                [attempt.latency_ms for attempt in attempts],
            ],
        )
        settled = {id for (id,) in cursor.fetchall()}
    settle_reservations({attempt.id: (attempt.cost_usd or Decimal(0), attempt.tokens) for attempt in attempts if attempt.id in settled})
    return [attempt.id in settled for attempt in attempts]


def _prices(prices: Sequence[Price | None]) -> tuple[list[Decimal | None], list[Decimal | None], list[Decimal | None]]:
    return (
        [price.input_usd if price else None for price in prices],
        [price.cached_input_usd if price else None for price in prices],
        [price.output_usd if price else None for price in prices],
    )
