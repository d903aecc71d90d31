"""Bar charts: bars above an axis of round numbers, drawn as SVG by `admin/_chart.html`, with the same numbers in a table below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 220
LEFT: Final = 64
RIGHT: Final = 20
BOTTOM: Final = 34
TOP: Final = 12
_BASELINE: Final = HEIGHT - BOTTOM
_MOST_LABELS: Final = 8
_STEPS: Final = (Decimal(1), Decimal(2), Decimal(5), Decimal(10))


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one bar stands for.

    Attributes:
        label: what stands below the bar, where there is room.
        name: the same in full, for the table.
        value: how high it is, in the chart's unit.
        broken: how much of that went wrong; hatched.
        words: what is said of it where somebody points at the bar.
        cells: its row in the table, after its name.
    """

    label: str
    name: str
    value: Decimal
    broken: Decimal = Decimal(0)
    words: str
    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A column's bar, in the chart's own units; `broken_height` is the part that is hatched."""

    x: float
    y: float
    width: float
    height: float
    broken_y: float
    broken_height: float
    label_x: float
    is_labelled: bool
    column: Column


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A bar chart. `ticks`: of each its height and what stands there; `says`: what it shows, for those who do not see it;
    `reach`: from `top` to `baseline`, where a bar can be pointed at."""

    bars: list[Bar]
    ticks: list[tuple[float, str]]
    unit: str
    says: str
    heads: Sequence[str]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    top: int = TOP
    baseline: int = _BASELINE
    reach: int = _BASELINE - TOP

    @property
    def is_hatched(self) -> bool:
        return any(bar.broken_height for bar in self.bars)


def draw_chart(
    columns: Sequence[Column], *, unit: str, says: str, heads: Sequence[str], shown: Callable[[Decimal], str], least: int = 0
) -> Chart:
    """Lay out the bars of `columns`, from left to right.

    Args:
        heads: of the table's columns.
        shown: writes a number beside the axis.
        least: the smallest step of the axis: 1 for what is counted; 0: as small as need be.
    """
    highest = max((column.value for column in columns), default=Decimal(0))
    step = _round_step(max(Decimal(least), highest / 4))
    steps = max(1, int((highest / step).to_integral_value(ROUND_CEILING)))
    scale = (_BASELINE - TOP) / float(step * steps)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(columns))
    every = max(1, -(-len(columns) // _MOST_LABELS))
    bars = []
    for position, column in enumerate(columns):
        height, broken, x = float(column.value) * scale, float(column.broken) * scale, LEFT + position * slot
        bars.append(
            Bar(
                x=round(x + slot * 0.15, 1),
                y=round(_BASELINE - height, 1),
                width=round(slot * 0.7, 1),
                height=round(height, 1),
                broken_y=round(_BASELINE - broken, 1),
                broken_height=round(broken, 1),
                label_x=round(x + slot / 2, 1),
                is_labelled=position % every == (len(columns) - 1) % every,
                column=column,
            )
        )
    ticks = [(round(_BASELINE - float(step * number) * scale, 1), shown(step * number)) for number in range(steps + 1)]
    return Chart(bars=bars, ticks=ticks, unit=unit, says=says, heads=heads)


def _round_step(wanted: Decimal) -> Decimal:
    """Return 1, 2 or 5 times a power of ten that is not below `wanted`, so that four or so steps reach the highest bar."""
    if wanted <= 0:
        return Decimal(1)
    power = Decimal(10) ** wanted.adjusted()
    return next(power * factor for factor in _STEPS if power * factor >= wanted)
