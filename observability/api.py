"""The door of `observability`: what other apps may use of it, beside its `errors`, `logs` and `outbound`."""

from __future__ import annotations

from observability.alerts.standing import FailingTarget, IncidentLine, failing_targets, latest_incidents
from observability.alerts.watching import keep_alerting
from observability.breakers import BREAKER_FORGOTTEN_AFTER, breaker_closed, breaker_opened, open_breakers
from observability.budget_standing import BudgetStanding, budgets_of_key, fullest_budgets
from observability.budgets import Refusal, active_budgets, budgets_now
from observability.bursts import GroupCommit, run_burst
from observability.calibration import find_calibration, measured_calibration
from observability.calls import calls_of_turn
from observability.catalogue import ModelInUse, keep_prices, look_up, models_in_use, prices_in_use, register_models_in_use, store_prices
from observability.connections import connection_parameters
from observability.counting import (
    CountedTurn,
    count_alert,
    count_attempt,
    count_job_failure,
    count_lookups,
    count_recall,
    count_refusal,
    count_response,
    count_turn,
    open_stream,
    show_breaker,
)
from observability.dearest import dearest
from observability.doctor.examination import READING_TABLES, Examination, Finding, Grade, in_thread, register_examination
from observability.doctor.examining import Result, examine, worst_of
from observability.doctor.glance import look_at_alert_targets, look_at_breakers, look_at_readiness
from observability.doctor.work import look_at_work
from observability.health import HealthCheck, Unhealthy, register_health_check
from observability.jobs import note_job_failure
from observability.ledger import (
    NewAttempt,
    SettledAttempt,
    promise_attempts,
    recording,
    settle_attempts,
)
from observability.levels import keep_log_level
from observability.limits import admit, leave
from observability.models import AttemptKind, AttemptOutcome, Budget, SavedBy
from observability.money import usd
from observability.naming import name_things_by
from observability.orphans import keep_settling_orphans
from observability.polled import Polled
from observability.prices import FREE, Price, find_price
from observability.queues import Queue, Waiting, jobs_waiting, register_queue
from observability.redis import PREFIX, RedisDown, Script, redis_call
from observability.rollups import keep_summing, roll_up
from observability.rounds import is_set_within, keep_draining
from observability.rules import Standing, Verdict, Visit, client_of, headers_of, limits, rules_for
from observability.scraping import keep_measuring
from observability.sealing import Unreadable, seal, unseal
from observability.slow_routes import count_request
from observability.sparing import list_sparing, refuses_unpriced
from observability.statements import Statement, run_together
from observability.succession import find_payers, hand_on_limits, share_budgets
from observability.tokens import (
    TOKENS_PER_MESSAGE,
    TOKENS_TO_BEGIN_THE_REPLY,
    count_tokens,
    count_tokens_of_messages,
    count_tokens_of_prompt,
    most_tokens,
)
from observability.usage import UsageLine, Wanted, forecast_usd, list_failures, report_usage
from observability.worker_metrics import keep_serving_metrics

__all__ = [
    "BREAKER_FORGOTTEN_AFTER",
    "FREE",
    "PREFIX",
    "READING_TABLES",
    "TOKENS_PER_MESSAGE",
    "TOKENS_TO_BEGIN_THE_REPLY",
    "AttemptKind",
    "AttemptOutcome",
    "Budget",
    "BudgetStanding",
    "CountedTurn",
    "Examination",
    "FailingTarget",
    "Finding",
    "Grade",
    "GroupCommit",
    "HealthCheck",
    "IncidentLine",
    "ModelInUse",
    "NewAttempt",
    "Polled",
    "Price",
    "Queue",
    "RedisDown",
    "Refusal",
    "Result",
    "SavedBy",
    "Script",
    "SettledAttempt",
    "Standing",
    "Statement",
    "Unhealthy",
    "Unreadable",
    "UsageLine",
    "Verdict",
    "Visit",
    "Waiting",
    "Wanted",
    "active_budgets",
    "admit",
    "breaker_closed",
    "breaker_opened",
    "budgets_now",
    "budgets_of_key",
    "calls_of_turn",
    "client_of",
    "connection_parameters",
    "count_alert",
    "count_attempt",
    "count_job_failure",
    "count_lookups",
    "count_recall",
    "count_refusal",
    "count_request",
    "count_response",
    "count_tokens",
    "count_tokens_of_messages",
    "count_tokens_of_prompt",
    "count_turn",
    "dearest",
    "examine",
    "failing_targets",
    "find_calibration",
    "find_payers",
    "find_price",
    "forecast_usd",
    "fullest_budgets",
    "hand_on_limits",
    "headers_of",
    "in_thread",
    "is_set_within",
    "jobs_waiting",
    "keep_alerting",
    "keep_draining",
    "keep_log_level",
    "keep_measuring",
    "keep_prices",
    "keep_serving_metrics",
    "keep_settling_orphans",
    "keep_summing",
    "latest_incidents",
    "leave",
    "limits",
    "list_failures",
    "list_sparing",
    "look_at_alert_targets",
    "look_at_breakers",
    "look_at_readiness",
    "look_at_work",
    "look_up",
    "measured_calibration",
    "models_in_use",
    "most_tokens",
    "name_things_by",
    "note_job_failure",
    "open_breakers",
    "open_stream",
    "prices_in_use",
    "promise_attempts",
    "recording",
    "redis_call",
    "refuses_unpriced",
    "register_examination",
    "register_health_check",
    "register_models_in_use",
    "register_queue",
    "report_usage",
    "roll_up",
    "rules_for",
    "run_burst",
    "run_together",
    "seal",
    "settle_attempts",
    "share_budgets",
    "show_breaker",
    "store_prices",
    "unseal",
    "usd",
    "worst_of",
]
