"""`manage.py prices`: what the models in use cost, and where that is known from."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from observability.catalogue import ModelInUse, Renewed, look_up, models_in_use, prices_in_use, store_prices, unpriced_models
from observability.prices import Price

_REMEDY = "Enter it in the admin under Prices; for a model of your own, 0 is a price."


class Command(BaseCommand):
    help = "Look up what models cost that have no price yet, in the catalogue of public prices, and list the prices of all models in use."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--refresh", action="store_true", help="look all models up again, also those that have a price")
        parser.add_argument("--list", action="store_true", help="look nothing up, only list")

    def handle(self, *, refresh: bool, list: bool, **options: Any) -> None:
        if not list:
            self._renew([model for model in (models_in_use() if refresh else unpriced_models()) if not model.is_free])
        prices = prices_in_use()
        for model, price in prices:
            self.stdout.write(f"{model.provider}  {model.model}  {_words(model, price)}")
        if not prices:
            self.stdout.write("No models are in use yet.")
        if any(price is None and not model.is_free for model, price in prices):
            self.stdout.write(f"The price of some models is unknown. {_REMEDY}")

    def _renew(self, models: list[ModelInUse]) -> None:
        if not models:
            return
        try:
            entries = asyncio.run(look_up(models))
        except (RuntimeError, OSError) as error:  # TimeoutError is an OSError
            raise CommandError(f"The catalogue of prices could not be read: {error}") from error
        with transaction.atomic():
            renewed = store_prices(models, entries)
        counts = [f"{count} {what}" for what in Renewed if (count := sum(was == what for was in renewed.values()))]
        self.stdout.write(f"Looked up {len(models)}: {', '.join(counts)}.")


def _words(model: ModelInUse, price: Price | None) -> str:
    if model.is_free:
        return "free: it runs on this host"
    if price is None:
        return "unknown"
    cached = "" if price.cached_input_usd is None else f", cached input {price.cached_input_usd.normalize():f}"
    long = f"; more above {price.tiers[0][0]:,} tokens" if price.tiers else ""
    return f"input {price.input_usd.normalize():f}{cached}, output {price.output_usd.normalize():f} USD per million tokens{long}"
