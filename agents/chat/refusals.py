"""Why a turn is refused before its model is called: a rate limit, or a budget."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from observability.api import Refusal, Standing, Verdict, headers_of
from observability.errors import ChatbotError

_MEASURES: Final = {"requests": "requests a minute", "tokens": "tokens a minute", "concurrent": "answers at once"}
_SCOPES: Final = {
    "address": "this address",
    "session": "this session or user",
    "key": "this API key",
    "agent": "this agent",
    "api": "this address or API key",
    "sign-in": "this address",
}
_BUSY_RETRY_S: Final = 5


class RateLimited(ChatbotError):
    """A rate limit is used up."""

    code = "rate-limited"
    status = 429
    title = "Too many requests"
    remedy = "Wait for the seconds that Retry-After names, then send the request again."

    def __init__(self, verdict: Verdict, standing: Standing) -> None:
        rule = standing.rule
        super().__init__(
            f"At most {rule.quota:,} {_MEASURES[rule.measure]} are allowed for {_SCOPES[rule.scope]}. "
            f"Try again in {standing.reset_s} seconds.",
            retry_after_s=standing.reset_s,
        )
        self.headers = headers_of(verdict)


class BudgetSpent(ChatbotError):
    """What is spent leaves no room for another call."""

    code = "budget-spent"
    status = 402
    title = "Budget spent"
    remedy = "Wait until the budget resets, or ask its owner to raise it."


class BudgetBusy(ChatbotError):
    """All that is left of a budget is promised to calls that are under way."""

    code = "budget-busy"
    status = 429
    title = "Budget in use"
    remedy = "Wait for the seconds that Retry-After names, then send the request again."


class PriceUnknown(ChatbotError):
    """A budget in money applies, and nobody knows what the model costs."""

    code = "price-unknown"
    status = 402
    title = "Price unknown"
    remedy = "The operator can enter the model's price in the admin, or let the budget allow models of unknown price."


def error_of(refusal: Refusal) -> ChatbotError:
    """Return the error that tells of a budget's refusal."""
    if refusal.unpriced:
        return PriceUnknown(f"The budget '{refusal.budget}' lets no model answer whose price is unknown. {PriceUnknown.remedy}")
    if not refusal.is_spent:
        return BudgetBusy(
            f"All that is left of the budget '{refusal.budget}' is promised to answers that are being written. Try again in a moment.",
            retry_after_s=_BUSY_RETRY_S,
        )
    left_s = max(1, round((refusal.resets_at - datetime.now(UTC)).total_seconds()))
    return BudgetSpent(f"The budget '{refusal.budget}' is spent. It resets at {refusal.resets_at.isoformat()}.", retry_after_s=left_s)
