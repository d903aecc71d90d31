"""The rows of what happened and what it cost: prices, the ledger, its rollups, budgets, limits."""

from __future__ import annotations

from observability.models.budgets import Budget, BudgetPeriod, BudgetScope, OnUnknownPrice, Period, Reservation
from observability.models.ledger import (
    Attempt,
    AttemptKind,
    AttemptOutcome,
    RollupState,
    SavedBy,
    UsageConversation,
    UsageDay,
    UsageHour,
    UsagePerson,
)
from observability.models.limits import Limit, LimitScope
from observability.models.prices import ModelPrice, PriceSource

__all__ = [
    "Attempt",
    "AttemptKind",
    "AttemptOutcome",
    "Budget",
    "BudgetPeriod",
    "BudgetScope",
    "Limit",
    "LimitScope",
    "ModelPrice",
    "OnUnknownPrice",
    "Period",
    "PriceSource",
    "Reservation",
    "RollupState",
    "SavedBy",
    "UsageConversation",
    "UsageDay",
    "UsageHour",
    "UsagePerson",
]
