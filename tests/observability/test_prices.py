"""Prices: what a call costs, which price holds, and how models in use come to theirs."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import transaction

from observability import catalogue
from observability.catalogue import ModelInUse, Renewed, keep_prices, look_up, prices_in_use, store_prices, unpriced_models
from observability.models import ModelPrice, PriceSource
from observability.prices import Price, read_prices
from tests.factories import make_agent, make_provider, make_version, unique
from tests.waiting import eventually

OPENAI = "https://api.openai.com/v1"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def in_use(monkeypatch):
    """`in_use(model, …)` makes these the models in use, and no others."""

    def in_use(*models):
        monkeypatch.setattr(catalogue, "_lists", [lambda: models])

    in_use()
    return in_use


def store(models, entries):
    with transaction.atomic():
        return store_prices(models, entries)


def entry(**prices):
    return {"input_usd": "1", "cached_input_usd": None, "output_usd": "2", "tiers": [], "context_tokens": None, **prices}


def price_now(provider, model):
    return next((price for since, price in read_prices().get((provider, model), ()) if since <= datetime.now(UTC)), None)


def test_cost_counts_cached_tokens_at_their_own_price():
    price = Price(input_usd=Decimal(2), cached_input_usd=Decimal("0.5"), output_usd=Decimal(8))
    assert price.cost(prompt_tokens=1000, cached_tokens=400, completion_tokens=100) == Decimal("0.0022")


def test_a_long_prompt_costs_its_tier_throughout():
    long = Price(input_usd=Decimal(4), output_usd=Decimal(12))
    price = Price(input_usd=Decimal(2), output_usd=Decimal(8), tiers=((200_000, long),))
    assert price.cost(prompt_tokens=200_000, completion_tokens=0) == Decimal("0.4")
    assert price.cost(prompt_tokens=200_001, completion_tokens=0) == Decimal("0.800004")
    assert price.most(prompt_tokens=200_001, completion_tokens=0) == Decimal("0.800004")


def test_the_catalogue_knows_models_by_the_vendors_address_only():
    asked = [
        ModelInUse("openai", "gpt-5-mini", OPENAI),
        ModelInUse("google", "gemini-2.5-pro", "https://generativelanguage.googleapis.com/v1beta/openai"),
        ModelInUse("embeddings", "text-embedding-3-small", OPENAI),
        ModelInUse("local", "gpt-5-mini", "http://localhost:11434/v1"),
        ModelInUse("proxy", "gpt-5-mini", "https://llm.example.com/v1"),
        ModelInUse("openai", "no-such-model", OPENAI),
        ModelInUse("perplexity", "sonar", "https://api.perplexity.ai"),  # charges for each request, too
    ]
    small, tiered, embedding, *unknown = async_to_sync(look_up)(asked)
    assert small == {"input_usd": "0.25", "cached_input_usd": "0.025", "output_usd": "2", "tiers": [], "context_tokens": 400_000}
    assert [tier["above_tokens"] for tier in tiered["tiers"]] == [200_000]
    assert Decimal(tiered["tiers"][0]["input_usd"]) > Decimal(tiered["input_usd"])
    assert (embedding["input_usd"], embedding["output_usd"]) == ("0.02", "0")
    assert unknown == [None, None, None, None]


@pytest.mark.django_db
def test_a_price_is_stored_once_and_a_change_from_then_on():
    model = ModelInUse(unique("vendor"), "swift", OPENAI)
    assert store([model], [entry()]) == {model: Renewed.NEW}
    assert store([model], [entry()]) == {model: Renewed.SAME}
    assert store([model], [entry(input_usd="3")]) == {model: Renewed.CHANGED}
    assert store([model], [None]) == {model: Renewed.UNKNOWN}
    rows = list(ModelPrice.objects.filter(provider=model.provider).order_by("effective_from"))
    assert [row.input_usd for row in rows] == [1, 3]
    assert price_now(model.provider, "swift").input_usd == 3, "a model that left the catalogue keeps its price"
    assert [since for since, _ in read_prices()[model.provider, "swift"]] == [rows[1].effective_from, rows[0].effective_from]


@pytest.mark.django_db
def test_a_manual_price_goes_before_the_catalogues_from_its_date_on():
    vendor = unique("vendor")

    def enter(price, *, since):
        ModelPrice.objects.create(provider=vendor, model="swift", input_usd=price, output_usd=price, effective_from=since)

    now = datetime.now(UTC)
    enter(9, since=now + timedelta(days=1))
    assert price_now(vendor, "swift") is None
    store([ModelInUse(vendor, "swift", OPENAI)], [entry()])
    assert price_now(vendor, "swift").input_usd == 1, "a price to come hides nothing"
    enter(7, since=now - timedelta(days=1))
    assert price_now(vendor, "swift").input_usd == 7
    store([ModelInUse(vendor, "swift", OPENAI)], [entry(input_usd="2")])
    assert price_now(vendor, "swift").input_usd == 7, "a newer price of the catalogue, too, comes after it"


@pytest.mark.django_db
def test_an_unknown_price_is_none_and_a_free_model_is_not_unknown(in_use):
    local, demo = ModelInUse("local", "llama", "http://localhost:1/v1"), ModelInUse("demo", "tiny", is_free=True)
    in_use(local, demo)
    assert dict(prices_in_use()) == {local: None, demo: None}
    assert unpriced_models() == [local]


@pytest.mark.django_db
def test_models_of_versions_fallbacks_and_background_work_are_in_use():
    first = make_provider(slug=unique("first"), base_url=OPENAI, default_model="gpt-5-mini")
    second = make_provider(slug=unique("second"), default_model="backup")
    agent = make_agent(provider=first, summary_model="gpt-5-nano", classifier_provider=second, classifier_model="not-asked")
    named = {"summary_provider": second, "summary_model": "", "classifier_enabled": True, "classifier_model": "judge"}
    draft = make_version(agent, published=False, model="gpt-6-luna", simple_model="gpt-6-nano", **named)
    make_version(make_agent(provider=first, published=False), simple_model="gpt-6-nano", classifier_enabled=True, classifier_model="tiny")
    draft.fallbacks.create(provider=second, model="llama", position=1)
    own = {(model.provider, model.model) for model in catalogue.models_in_use() if model.provider in (first.slug, second.slug)}
    assert own == {
        (first.slug, "gpt-5-mini"),
        (first.slug, "gpt-5-nano"),
        (first.slug, "gpt-6-luna"),
        (first.slug, "gpt-6-nano"),
        (first.slug, "tiny"),
        (second.slug, "backup"),
        (second.slug, "judge"),
        (second.slug, "llama"),
    }


@pytest.mark.django_db(transaction=True)
def test_the_command_prices_what_has_none_and_says_what_stays_unknown(in_use):
    vendor = unique("vendor")
    in_use(ModelInUse(vendor, "gpt-5-mini", OPENAI), ModelInUse(vendor, "my-model", OPENAI), ModelInUse("demo", "tiny", is_free=True))

    def run(*arguments):
        out = io.StringIO()
        call_command("prices", *arguments, stdout=out)
        return out.getvalue()

    assert f"{vendor}  gpt-5-mini  unknown" in run("--list")
    first = run()
    assert "Looked up 2: 1 new, 1 unknown." in first
    assert f"{vendor}  gpt-5-mini  input 0.25, cached input 0.025, output 2 USD per million tokens" in first
    assert f"{vendor}  my-model  unknown" in first
    assert "Enter it in the admin under Prices" in first
    assert "demo  tiny  free" in first
    assert "Looked up 1: 1 unknown." in run()
    assert "Looked up 2: 1 as before, 1 unknown." in run("--refresh")
    assert ModelPrice.objects.filter(provider=vendor, source=PriceSource.CATALOGUE).count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_worker_prices_a_new_model_and_asks_once_for_what_the_catalogue_lacks(in_use, monkeypatch):
    vendor = unique("vendor")
    asked = []
    really = catalogue.look_up

    async def noting(models):
        asked.extend(model.model for model in models)
        return await really(models)

    monkeypatch.setattr(catalogue, "look_up", noting)
    in_use(ModelInUse(vendor, "my-model", OPENAI))

    async def work():
        stopping = asyncio.Event()
        task = asyncio.create_task(keep_prices(stopping, every_s=0.05))
        await asyncio.to_thread(eventually, lambda: bool(asked), what="the notice or question comes")
        in_use(ModelInUse(vendor, "my-model", OPENAI), ModelInUse(vendor, "gpt-5-mini", OPENAI))
        await asyncio.to_thread(eventually, lambda: len(asked) > 1, what="the second is asked for")
        await asyncio.sleep(0.3)  # several more looks
        stopping.set()
        await task

    async_to_sync(work)()
    assert asked == ["my-model", "gpt-5-mini"]
    assert price_now(vendor, "gpt-5-mini").output_usd == 2
