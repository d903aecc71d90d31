"""The door of `observability`: what other apps may use of it, beside its `errors`, `logs` and `outbound`."""

from __future__ import annotations

from observability.alerts import keep_telling_of_budgets
from observability.budgets import Claim, Refusal, active_budgets, reserve
from observability.bursts import GroupCommit, run_burst
from observability.catalogue import ModelInUse, keep_prices, look_up, models_in_use, prices_in_use, register_models_in_use, store_prices
from observability.health import HealthCheck, Unhealthy, register_health_check
from observability.ledger import NewAttempt, SettledAttempt, open_attempts, settle_attempts, settle_orphans
from observability.limits import Rule, Standing, Verdict, Visit, admit, headers_of, leave, limits, rules_for
from observability.models import AttemptKind, AttemptOutcome, Budget
from observability.polled import Polled
from observability.prices import FREE, Price, find_price
from observability.redis import RedisDown, redis_call
from observability.rollups import roll_up
from observability.tokens import count_tokens, count_tokens_of_prompt, most_tokens

__all__ = [
    "FREE",
    "AttemptKind",
    "AttemptOutcome",
    "Budget",
    "Claim",
    "GroupCommit",
    "HealthCheck",
    "ModelInUse",
    "NewAttempt",
    "Polled",
    "Price",
    "RedisDown",
    "Refusal",
    "Rule",
    "SettledAttempt",
    "Standing",
    "Unhealthy",
    "Verdict",
    "Visit",
    "active_budgets",
    "admit",
    "count_tokens",
    "count_tokens_of_prompt",
    "find_price",
    "headers_of",
    "keep_prices",
    "keep_telling_of_budgets",
    "leave",
    "limits",
    "look_up",
    "models_in_use",
    "most_tokens",
    "open_attempts",
    "prices_in_use",
    "redis_call",
    "register_health_check",
    "register_models_in_use",
    "reserve",
    "roll_up",
    "rules_for",
    "run_burst",
    "settle_attempts",
    "settle_orphans",
    "store_prices",
]
