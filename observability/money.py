"""Money as people read it."""

from __future__ import annotations

from decimal import Decimal


def usd(amount: Decimal) -> str:
    """Return an amount of US dollars: in cents, small ones with four digits that count."""
    if amount == 0 or abs(amount) >= 1:
        return f"{amount:,.2f} USD"
    digits = max(2, 3 - amount.adjusted())
    return f"{amount:.{digits}f}".rstrip("0").ljust(4, "0") + " USD"
