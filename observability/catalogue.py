"""Prices of the models in use, filled in from the catalogue of public prices.

Who calls models says which (`register_models_in_use`); the price of each is looked up in a process of its own
(`observability.vendor_prices`) and stored as a row, a new one from the moment it changed. A price that somebody entered goes before the
catalogue's. A model that the catalogue does not know has no row: its price is unknown, which is not 0.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from django.db import connection

from observability.bursts import run_burst
from observability.models import ModelPrice, PriceSource
from observability.prices import Price, price_list, read_prices
from observability.rounds import keep_doing

_LOOK_EVERY_S: Final = 10.0
_ALL_EVERY_S: Final = 24 * 3600.0
_DEADLINE_S: Final = 60.0
_PROJECT: Final = Path(__file__).resolve().parent.parent
# An arbitrary number, this job's own among the advisory locks of a database.
_LOCK: Final = 7_241_921
_SMALLEST: Final = Decimal("1e-8")  # what the columns hold
_STORED: Final = ("input_usd", "cached_input_usd", "output_usd", "tiers", "context_tokens")
_NO_MONEY: Final = frozenset({"tiers", "context_tokens"})


@dataclass(frozen=True, slots=True, order=True)
class ModelInUse:
    """A model that calls may be made of. `is_free`: it runs on this host and costs nothing."""

    provider: str
    model: str
    base_url: str = ""
    is_free: bool = False


class Renewed(StrEnum):
    """What became of a model's row in the catalogue's prices."""

    NEW = "new"
    CHANGED = "changed"
    SAME = "as before"
    UNKNOWN = "unknown"


_lists: list[Callable[[], Iterable[ModelInUse]]] = []


def register_models_in_use(list_models: Callable[[], Iterable[ModelInUse]]) -> None:
    """Let `list_models`, which may ask the database, say which models are called."""
    if list_models not in _lists:
        _lists.append(list_models)


def models_in_use() -> list[ModelInUse]:
    """Return every model that calls may be made of, by provider and name."""
    return sorted({model for list_models in _lists for model in list_models() if model.model})


def prices_in_use(*, at: datetime | None = None) -> list[tuple[ModelInUse, Price | None]]:
    """Return every model in use with what it costs now; None: unknown."""
    known, moment = read_prices(), at or datetime.now(UTC)

    def price_of(model: ModelInUse) -> Price | None:
        return next((price for since, price in known.get((model.provider, model.model), ()) if since <= moment), None)

    return [(model, price_of(model)) for model in models_in_use()]


def unpriced_models() -> list[ModelInUse]:
    """Return the models in use whose price is unknown."""
    return [model for model, price in prices_in_use() if price is None and not model.is_free]


async def look_up(models: Sequence[ModelInUse]) -> list[dict[str, Any] | None]:
    """Return the catalogue's price of each model; None: it does not know one.

    Raises:
        RuntimeError: the process that looks prices up failed.
        TimeoutError: it did not end.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "observability.vendor_prices"),
        cwd=_PROJECT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    asked = json.dumps([(model.base_url, model.model) for model in models]).encode()
    try:
        async with asyncio.timeout(_DEADLINE_S):
            answer, complaint = await process.communicate(asked)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"looking prices up failed: {complaint.decode(errors='replace')[-500:]}")
    found: list[dict[str, Any] | None] = json.loads(answer)
    return found


def store_prices(models: Sequence[ModelInUse], entries: Sequence[dict[str, Any] | None]) -> dict[ModelInUse, Renewed]:
    """Store what `look_up` found, and say what that changed. Runs inside a transaction that the caller began."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    names = {model.provider for model in models}
    rows = ModelPrice.objects.filter(source=PriceSource.CATALOGUE, provider__in=names).order_by("effective_from")
    latest = {(row.provider, row.model): row for row in rows}
    renewed, added = {}, []
    for model, entry in zip(models, entries, strict=True):
        row = latest.get((model.provider, model.model))
        if entry is None:
            renewed[model] = Renewed.UNKNOWN
        elif row is not None and _says(row) == _said_by(entry):
            renewed[model] = Renewed.SAME
        else:
            renewed[model] = Renewed.CHANGED if row else Renewed.NEW
            added.append(
                ModelPrice(
                    provider=model.provider,
                    model=model.model,
                    source=PriceSource.CATALOGUE,
                    effective_from=datetime.now(UTC),
                    **_said_by(entry),
                )
            )
    # Two providers' rows may share a name only where one took the other's: the later one holds.
    ModelPrice.objects.bulk_create(added, ignore_conflicts=True)
    price_list.forget()
    return renewed


async def renew(models: Iterable[ModelInUse]) -> dict[ModelInUse, Renewed]:
    """Look up and store the prices of `models`, and say what that changed.

    Raises:
        RuntimeError, TimeoutError: as `look_up`.
    """
    asked = [model for model in models if not model.is_free]
    return await run_burst(store_prices, asked, await look_up(asked)) if asked else {}


async def keep_prices(stopping: asyncio.Event, *, every_s: float = _LOOK_EVERY_S) -> None:
    """Price models soon after somebody begins to use them, and all of them once a day, until `stopping` is set."""
    asked_at: dict[ModelInUse, float] = {}
    all_at = -_ALL_EVERY_S

    async def step() -> None:
        nonlocal all_at
        now = time.monotonic()
        if now - all_at >= _ALL_EVERY_S:
            models, all_at = await run_burst(models_in_use), now
        else:
            unpriced = await run_burst(unpriced_models)
            models = [model for model in unpriced if now - asked_at.get(model, -_ALL_EVERY_S) >= _ALL_EVERY_S]
        if models:
            await renew(models)
            asked_at.update(dict.fromkeys(models, now))

    await keep_doing(stopping, step, every_s=every_s, what="pricing models", queue="prices")


def _says(row: ModelPrice) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _STORED}


def _said_by(entry: dict[str, Any]) -> dict[str, Any]:
    def number(value: str | None) -> Decimal | None:
        return None if value is None else Decimal(value).quantize(_SMALLEST)

    return {name: entry[name] if name in _NO_MONEY else number(entry[name]) for name in _STORED}
