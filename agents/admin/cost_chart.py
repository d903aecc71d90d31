"""The chart of what each day cost: bars above an axis of round sums of money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal
from typing import Final

from observability.api import usd

WIDTH: Final = 720
HEIGHT: Final = 220
LEFT: Final = 64
RIGHT: Final = 20
BOTTOM: Final = 34
TOP: Final = 12
_MOST_LABELS: Final = 8
_STEPS: Final = (Decimal(1), Decimal(2), Decimal(5), Decimal(10))


@dataclass(frozen=True, kw_only=True)
class DayCost:
    """What one UTC day cost and saved, in US dollars."""

    day: date
    cost_usd: Decimal
    saved_usd: Decimal
    turns: int

    @property
    def cost(self) -> str:
        return usd(self.cost_usd)

    @property
    def saved(self) -> str:
        return usd(self.saved_usd)


@dataclass(frozen=True, kw_only=True)
class CostBar:
    """A day's bar, in the chart's own units."""

    x: float
    y: float
    width: float
    height: float
    label_x: float
    labelled: bool
    day: DayCost


@dataclass(frozen=True, kw_only=True)
class CostChart:
    """A bar chart of US dollars a day."""

    bars: list[CostBar]
    ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    baseline: int = HEIGHT - BOTTOM


def draw_costs(days: Sequence[DayCost]) -> CostChart:
    """Lay out the bars of `days`, which follow each other without a gap."""
    highest = max((day.cost_usd for day in days), default=Decimal(0))
    step = _round_step(highest)
    steps = max(1, int((highest / step).to_integral_value(ROUND_CEILING)))
    scale = (HEIGHT - BOTTOM - TOP) / float(step * steps)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(days))
    every = -(-len(days) // _MOST_LABELS)
    bars = []
    for position, day in enumerate(days):
        height, x = float(day.cost_usd) * scale, LEFT + position * slot
        bars.append(
            CostBar(
                x=round(x + slot * 0.15, 1),
                y=round(HEIGHT - BOTTOM - height, 1),
                width=round(slot * 0.7, 1),
                height=round(height, 1),
                label_x=round(x + slot / 2, 1),
                labelled=position % every == (len(days) - 1) % every,
                day=day,
            )
        )
    ticks = [
        (round(HEIGHT - BOTTOM - float(step * number) * scale, 1), usd(step * number).removesuffix(" USD")) for number in range(steps + 1)
    ]
    return CostChart(bars=bars, ticks=ticks)


def _round_step(highest: Decimal) -> Decimal:
    """Return 1, 2 or 5 times a power of ten, so that four or so steps reach `highest`."""
    if highest <= 0:
        return Decimal(1)
    wanted = highest / 4
    power = Decimal(10) ** wanted.adjusted()
    return next(power * factor for factor in _STEPS if power * factor >= wanted)
