"""Sums and numbers as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator


def per_million(price: Decimal) -> str:
    """Return a price in US dollars per million tokens, all its digits, at least cents."""
    whole, _, rest = f"{price.normalize():f}".partition(".")
    return f"{whole}.{rest.ljust(2, '0')}"


def bound(fields: dict[str, Any], *names: str, least: int = 0, most: int | None = None) -> None:
    """Let each of the number fields `names`, where a form has it, refuse in words what is out of bounds."""
    for name in names:
        if name in fields:
            fields[name].validators.append(MinValueValidator(least, "Enter at least %(limit_value)s."))
            if most is not None:
                fields[name].validators.append(MaxValueValidator(most, "Enter at most %(limit_value)s."))


def with_current(choices: Iterable[tuple[str, str]], current: str, *, empty: str) -> list[tuple[str, str]]:
    """Return `choices` below an empty one, with the current value where that is none of them (any more)."""
    listed = list(choices)
    if current and current not in {value for value, _ in listed}:
        listed.append((current, f"{current} (removed)"))
    return [("", empty), *listed]
