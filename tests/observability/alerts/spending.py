"""Spending from budgets as calls of models do."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from django.db import transaction
from uuid_utils.compat import uuid7

from observability.budgets import Claim, active_budgets, reserve, settle_reservations


def spend(usd, *, tokens=1, subject_id=3):
    """Make a call that costs so much, and return why it was refused."""
    asked = Claim(
        attempt_id=uuid7(), agent="helper", key="k7", subject_id=subject_id, usd=Decimal(usd), tokens=tokens, at=datetime.now(UTC)
    )
    with transaction.atomic():
        [refusal] = reserve([asked], budgets=active_budgets())
        if refusal is None:
            settle_reservations({asked.attempt_id: (Decimal(usd), tokens)})
    return refusal
