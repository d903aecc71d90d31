"""Lines of the ledger for tests: opened and settled as the product does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from uuid_utils.compat import uuid7

from observability.ledger import NewAttempt, SettledAttempt, open_attempts, settle_attempts
from observability.models import AttemptKind, AttemptOutcome
from observability.prices import Price

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DOLLAR_A_MILLION = Price(input_usd=Decimal(1), output_usd=Decimal(1))


def open_attempt(**fields) -> UUID:
    attempt = NewAttempt(
        **{
            "id": uuid7(), "turn_id": uuid7(), "kind": AttemptKind.CHAT, "agent": "helper", "key": "k7", "started_at": NOON,
            "deadline_at": datetime.now(UTC) + timedelta(minutes=1), "price": DOLLAR_A_MILLION, "provider": "vendor", "model": "large",
            "worst_prompt_tokens": 1000, "worst_completion_tokens": 500, **fields,
        }
    )  # fmt: skip
    open_attempts([attempt])
    return attempt.id


def settle(attempt_id: UUID, **fields) -> bool:
    values = {
        "outcome": AttemptOutcome.DONE, "provider": "vendor", "model": "large", "price": DOLLAR_A_MILLION,
        "prompt_tokens": 100, "completion_tokens": 10, **fields,
    }  # fmt: skip
    [is_settled] = settle_attempts([SettledAttempt(id=attempt_id, **values)])
    return is_settled


def spend(usd: str = "1", *, settled: dict | None = None, **fields) -> UUID:
    """Write a settled call that cost so much."""
    attempt_id = open_attempt(**fields)
    tokens = int(Decimal(usd) * 1_000_000)
    named = {name: fields[name] for name in ("provider", "model") if name in fields}
    settle(attempt_id, **{"prompt_tokens": tokens, "completion_tokens": 0, **named, **(settled or {})})
    return attempt_id
