"""The rows of what happened and what it cost: prices, the ledger, its rollups, budgets, limits, alerts."""

from __future__ import annotations

from observability.models.alerts import (
    AlertKind,
    AlertRule,
    AlertTarget,
    Breaker,
    Incident,
    JobFailure,
    Notice,
    NoticeState,
    TargetKind,
    Telling,
)
from observability.models.budgets import Budget, BudgetPeriod, BudgetScope, OnUnknownPrice, Period, Reservation, SharedBudget
from observability.models.doctor import DoctorReport
from observability.models.ledger import (
    Attempt,
    AttemptKind,
    AttemptOutcome,
    RollupState,
    SavedBy,
    TotalOfConversation,
    TotalOfPerson,
    UsageConversation,
    UsageDay,
    UsageHour,
    UsagePerson,
)
from observability.models.limits import Limit, LimitScope
from observability.models.logs import LogLevel
from observability.models.prices import ModelPrice, PriceSource

__all__ = [
    "AlertKind",
    "AlertRule",
    "AlertTarget",
    "Attempt",
    "AttemptKind",
    "AttemptOutcome",
    "Breaker",
    "Budget",
    "BudgetPeriod",
    "BudgetScope",
    "DoctorReport",
    "Incident",
    "JobFailure",
    "Limit",
    "LimitScope",
    "LogLevel",
    "ModelPrice",
    "Notice",
    "NoticeState",
    "OnUnknownPrice",
    "Period",
    "PriceSource",
    "Reservation",
    "RollupState",
    "SavedBy",
    "SharedBudget",
    "TargetKind",
    "Telling",
    "TotalOfConversation",
    "TotalOfPerson",
    "UsageConversation",
    "UsageDay",
    "UsageHour",
    "UsagePerson",
]
