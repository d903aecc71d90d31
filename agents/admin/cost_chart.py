"""The chart of what each day cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from observability.api import usd

from .charts import Chart, Column, draw_chart


@dataclass(frozen=True, kw_only=True)
class DayCost:
    """What one UTC day cost and saved, in US dollars."""

    day: date
    cost_usd: Decimal
    saved_usd: Decimal
    turns: int


def draw_costs(days: Sequence[DayCost]) -> Chart:
    """Lay out the bars of `days`, which follow each other without a gap."""
    return draw_chart(
        [_column(day) for day in days],
        unit="US dollars",
        says="what each day cost",
        heads=("Day", "Cost", "Saved", "Turns"),
        shown=lambda sum_usd: usd(sum_usd).removesuffix(" USD"),
    )


def _column(day: DayCost) -> Column:
    cost, label, turns = usd(day.cost_usd), f"{day.day:%-d %b}", f"{day.turns:,}"
    return Column(
        label=label,
        name=f"{day.day:%a %-d %b %Y}",
        value=day.cost_usd,
        words=f"{label}: {cost}, {turns} turns",
        cells=(cost, usd(day.saved_usd), turns),
    )
