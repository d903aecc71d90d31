"""What a call costs: prices in US dollars per million tokens, as Decimal throughout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from observability.models import ModelPrice
from observability.polled import Polled

_MILLION: Final = Decimal(1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs, in US dollars per million tokens.

    Attributes:
        cached_input_usd: of the part of a prompt that the vendor had in its cache; None: as other input.
        tiers: prices of longer prompts, by the number of prompt tokens above which they hold, the smallest first.
        context_tokens: the most that the model reads; None: not known.
    """

    input_usd: Decimal
    output_usd: Decimal
    cached_input_usd: Decimal | None = None
    tiers: tuple[tuple[int, Price], ...] = ()
    context_tokens: int | None = None

    def cost(self, *, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> Decimal:
        """Return what a call costs in US dollars. `cached_tokens` are part of `prompt_tokens`."""
        price = self.at(prompt_tokens)
        cached = min(cached_tokens, prompt_tokens)
        cached_usd = price.input_usd if price.cached_input_usd is None else price.cached_input_usd
        return ((prompt_tokens - cached) * price.input_usd + cached * cached_usd + completion_tokens * price.output_usd) / _MILLION

    def most(self, *, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """Return the most that a call of at most so many tokens can cost."""
        return self.dearest(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)._worst(prompt_tokens, completion_tokens)

    def dearest(self, *, prompt_tokens: int, completion_tokens: int) -> Price:
        """Return the price, of those that a call of at most so many tokens can meet, at which it costs the most."""
        reached = [self, *(price for above, price in self.tiers if prompt_tokens > above)]
        return max(reached, key=lambda price: price._worst(prompt_tokens, completion_tokens))

    def _worst(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        input_usd = max(self.input_usd, self.cached_input_usd or Decimal(0))
        return (prompt_tokens * input_usd + completion_tokens * self.output_usd) / _MILLION

    def at(self, prompt_tokens: int) -> Price:
        """Return the price that holds for a prompt of this length."""
        held = self
        for above, price in self.tiers:
            if prompt_tokens > above:
                held = price
        return held


FREE: Final = Price(input_usd=Decimal(0), output_usd=Decimal(0), cached_input_usd=Decimal(0))
"""What a model costs that runs on this host."""

_PriceList = Mapping[tuple[str, str], Sequence[tuple[datetime, Price]]]


def read_prices() -> _PriceList:
    """Read every price: by provider and model, each from when it holds; manual ones before the catalogue's, the newest first."""
    found: defaultdict[tuple[str, str], list[tuple[datetime, Price]]] = defaultdict(list)
    for row in ModelPrice.objects.order_by("-source", "-effective_from"):  # manual before catalogue
        found[row.provider, row.model].append((row.effective_from, price_of(row)))
    return found


def price_of(row: ModelPrice) -> Price:
    """Return the row's price as a value."""
    tiers = tuple(
        (
            int(tier["above_tokens"]),
            Price(
                input_usd=Decimal(tier["input_usd"]),
                output_usd=Decimal(tier["output_usd"]),
                cached_input_usd=Decimal(tier["cached_input_usd"]) if tier.get("cached_input_usd") is not None else None,
            ),
        )
        for tier in sorted(row.tiers, key=lambda tier: int(tier["above_tokens"]))
    )
    return Price(
        input_usd=row.input_usd,
        output_usd=row.output_usd,
        cached_input_usd=row.cached_input_usd,
        tiers=tiers,
        context_tokens=row.context_tokens,
    )


price_list: Final[Polled[_PriceList]] = Polled(read_prices, fresh_for_s=5.0)


async def find_price(provider: str, model: str, *, at: datetime | None = None) -> Price | None:
    """Return what `model` costs at `provider`; None: unknown."""
    moment = at or datetime.now(UTC)
    return next((price for since, price in (await price_list.get()).get((provider, model), ()) if since <= moment), None)
