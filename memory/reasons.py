"""Why a memory is recalled, as a small bar chart: what each feature added to its score, with its sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from memory.weights import FEATURES

WIDTH: Final = 100.0
_BECAUSE: Final = {feature.name: feature.because for feature in FEATURES}
_NOTHING: Final = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What one feature added to a score, and its bar, in hundredths of the chart's width."""

    name: str
    because: str
    value: float
    x: float
    width: float
    zero: float

    @property
    def is_loss(self) -> bool:
        return self.value < 0


def draw_reasons(contributions: Mapping[str, float]) -> list[Reason]:
    """Lay out the bars of one memory's score, the largest part first; what added nothing is left out."""
    telling = {name: value for name, value in contributions.items() if abs(value) >= _NOTHING}
    least, most = min([0.0, *telling.values()]), max([0.0, *telling.values()])
    span = max(most - least, _NOTHING)
    zero = -least / span * WIDTH
    return [
        Reason(
            name=name.replace("_", " "),
            because=_BECAUSE.get(name, ""),
            value=value,
            x=round(zero + min(value, 0.0) / span * WIDTH, 2),
            width=round(abs(value) / span * WIDTH, 2),
            zero=round(zero, 2),
        )
        for name, value in sorted(telling.items(), key=lambda item: -item[1])
    ]
