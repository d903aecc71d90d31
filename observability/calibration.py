"""How far our token counts are from each vendor's, learned from the usage that they report.

Models whose names OpenAI publishes are counted exactly (`observability.tokens`). Every other model has a tokenizer and a frame
around messages of its own. So some of the calls whose usage was reported keep in the ledger how many tokens we counted in their
prompts, and the last of them make a model's calibration: the vendor's count for each token of ours. What must be known before a
vendor tells it - estimates, and the worst case that budgets promise - is corrected by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import connection

from observability.catalogue import models_in_use
from observability.polled import Polled
from observability.tokens import is_counted_exactly

SAMPLES: Final = 200
"""How many of a model's last counted calls make its calibration."""
FEWEST_SAMPLES: Final = 5
"""Fewer calls say too little."""
ONE_IN: Final = 16
"""Once there are enough samples, one call in so many is counted: counting a long prompt takes milliseconds."""
_MARGINS: Final = 2
_FRESH_FOR_S: Final = 60.0
_READ: Final = """
    WITH sample AS (
        SELECT asked.provider, asked.model, last.prompt_tokens::float AS told, last.counted_prompt_tokens::float AS counted
        FROM unnest(%s::text[], %s::text[]) AS asked (provider, model)
        CROSS JOIN LATERAL (
            SELECT prompt_tokens, counted_prompt_tokens FROM observability_attempt
            WHERE provider = asked.provider AND model = asked.model AND counted_prompt_tokens IS NOT NULL
            ORDER BY settled_at DESC LIMIT %s
        ) AS last
    ), learned AS (
        SELECT provider, model, count(*) AS samples, sum(told) / sum(counted) AS ratio
        FROM sample GROUP BY provider, model HAVING sum(counted) > 0 AND sum(told) > 0
    )
    SELECT provider, model, samples, ratio, sum(abs(told - counted * ratio)) / sum(told)
    FROM learned JOIN sample USING (provider, model) GROUP BY provider, model, samples, ratio ORDER BY provider, model
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How a vendor counts beside us.

    Attributes:
        samples: of how many calls it was learned.
        ratio: how many tokens the vendor counts for one of ours.
        error: by how much of the vendor's count our corrected one is off, on average over all tokens.
    """

    samples: int = 0
    ratio: float = 1.0
    error: float = 0.0

    @property
    def is_known(self) -> bool:
        return self.samples >= FEWEST_SAMPLES

    def estimate(self, counted: int) -> int:
        """Return what the vendor most likely counts where we count `counted` tokens."""
        return round(counted * self.ratio) if self.is_known else counted

    def most(self, counted: int) -> int:
        """Return what the vendor hardly exceeds: twice the usual error more than the estimate, and never less than we count."""
        return max(counted, math.ceil(counted * self.ratio * (1 + _MARGINS * self.error))) if self.is_known else counted

    def wants(self, attempt_id: UUID) -> bool:
        """Tell whether this call is to be counted, so that the calibration is learned or stays true."""
        return self.samples < SAMPLES // 4 or attempt_id.int % ONE_IN == 0


EXACT: Final = Calibration()
"""Of models that are counted as their vendor counts them, and of those of which nothing is known yet."""


def read_calibrations() -> Mapping[tuple[str, str], Calibration]:
    """Read how far our counts of each model in use are from its vendor's, by provider and model."""
    models = models_in_use()
    with connection.cursor() as cursor:
        cursor.execute(_READ, [[model.provider for model in models], [model.model for model in models], SAMPLES])
        return {
            (provider, model): Calibration(samples=samples, ratio=ratio, error=error)
            for provider, model, samples, ratio, error in cursor.fetchall()
        }


calibrations: Final[Polled[Mapping[tuple[str, str], Calibration]]] = Polled(read_calibrations, fresh_for_s=_FRESH_FOR_S)


async def measured_calibration(provider: str, model: str) -> Calibration:
    """Return what was learned of `model` at `provider`, even of one that is counted exactly."""
    try:
        return (await calibrations.get()).get((provider, model), EXACT)
    except DatabaseError:  # our own counts are better than no answer
        return EXACT


async def find_calibration(provider: str, model: str) -> Calibration:
    """Return by what counts of `model` at `provider` are corrected."""
    return EXACT if is_counted_exactly(model) else await measured_calibration(provider, model)
