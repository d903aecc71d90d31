"""What vendors ask for their models, as genai-prices knows it. A process of its own: `python -m observability.vendor_prices`.

It reads a JSON list of [address, model] and writes a list of prices, null where one is not known. The catalogue takes 100 MB of
memory, which no server process should keep for a question that is asked once a day. Hence no Django here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

Entry = dict[str, Any]


def price_at(base_url: str, model: str, *, now: datetime) -> Entry | None:
    """Return what `model` costs at an address, in US dollars per million tokens; None: not known.

    An address that the catalogue does not know has no price, whatever the model is called: a model of the same name may run on
    somebody's own computer. Where the price depends on the time of day, it is the highest.
    """
    found = _find(get_snapshot(), base_url, model)
    if found is None:
        return None
    entries = [_entry(found.get_prices(now.replace(hour=hour))) for hour in range(24)]
    known = [entry for entry in entries if entry]
    if len(known) < 24:
        return None
    dearest = max(known, key=lambda entry: (Decimal(entry["input_usd"]), Decimal(entry["output_usd"])))
    return dearest | {"context_tokens": found.context_window}


def _find(catalogue: DataSnapshot, base_url: str, model: str) -> ModelInfo | None:
    try:
        vendor = catalogue.find_provider(None, None, base_url)
    except LookupError:
        return None
    if found := vendor.find_model(model, all_providers=catalogue.providers):
        return found
    try:
        return catalogue.find_provider_model(model, None, None, None)[1]
    except LookupError:
        return None


def _entry(price: ModelPrice) -> Entry | None:
    values = vars(price)
    # A charge for each request, or none for text at all, cannot be told in prices of tokens.
    if values.get("input_mtok") is None or values.get("requests_kcount"):
        return None
    kinds = (values["input_mtok"], values.get("cache_read_mtok"), values.get("output_mtok") or Decimal(0))
    starts = sorted({tier.start for kind in kinds if isinstance(kind, TieredPrices) for tier in kind.tiers})
    return _level(kinds, 0) | {"tiers": [{"above_tokens": start} | _level(kinds, start + 1) for start in starts]}


def _level(kinds: Iterable[Decimal | TieredPrices | None], prompt_tokens: int) -> Entry:
    names = ("input_usd", "cached_input_usd", "output_usd")
    return {name: _text(_value(kind, prompt_tokens)) for name, kind in zip(names, kinds, strict=True)}


def _value(kind: Decimal | TieredPrices | None, prompt_tokens: int) -> Decimal | None:
    if not isinstance(kind, TieredPrices):
        return kind
    return next((tier.price for tier in reversed(kind.tiers) if prompt_tokens > tier.start), kind.base)


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


if __name__ == "__main__":
    _now = datetime.now(UTC)
    json.dump([price_at(base_url, model, now=_now) for base_url, model in json.load(sys.stdin)], sys.stdout)
