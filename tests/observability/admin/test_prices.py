"""Prices in the admin: the catalogue's to look at, one's own to enter, and what is in use without any."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from observability.models import ModelPrice, PriceSource
from tests.factories import make_agent, make_provider, unique
from tests.ledger import open_attempt, settle

pytestmark = pytest.mark.django_db

LIST = "/admin/observability/modelprice/"


def catalogue(provider, **fields):
    return ModelPrice.objects.create(
        **{
            "provider": provider,
            "model": "swift",
            "source": PriceSource.CATALOGUE,
            "input_usd": "0.25",
            "output_usd": "2",
            "effective_from": datetime.now(UTC) - timedelta(days=1),
            **fields,
        }
    )


def form(**changed):
    whole = {"provider": "mine", "model": "llama", "input_usd": "0", "cached_input_usd": "", "output_usd": "0.5"}
    return whole | {"effective_from_0": "2026-01-01", "effective_from_1": "00:00:00"} | changed


def test_models_in_use_without_a_price_are_named_with_the_way_to_one(operator: Client):
    provider = make_provider(slug=unique("local"), default_model="llama/4 big")
    make_agent(provider=provider)
    page = operator.get(LIST).content.decode()
    assert "In use, but of unknown price" in page
    assert f"?provider={provider.slug}&amp;model=llama%2F4%20big" in page
    page = operator.get(f"{LIST}add/?provider={provider.slug}&model=llama%2F4%20big").content.decode()
    assert 'value="llama/4 big"' in page
    answer = operator.post(f"{LIST}add/", form(provider=provider.slug, model="llama/4 big"), follow=True)
    assert "are priced so within 5 seconds" in answer.content.decode()
    assert "In use, but of unknown price" not in answer.content.decode()
    row = ModelPrice.objects.get(provider=provider.slug)
    assert (row.source, row.input_usd, row.cached_input_usd) == (PriceSource.MANUAL, 0, None)


def test_the_list_says_which_price_holds(operator: Client):
    tiers = [{"above_tokens": 200_000, "input_usd": "0.5", "cached_input_usd": None, "output_usd": "3"}]
    catalogue("vendor", tiers=tiers)
    page = operator.get(LIST).content.decode()
    assert "0.25; 0.50 above 200,000 tokens" in page
    assert (page.count(">now<"), page.count(">not any more<")) == (1, 0)
    operator.post(f"{LIST}add/", form(provider="vendor", model="swift"))
    operator.post(f"{LIST}add/", form(provider="vendor", model="swift", effective_from_0="2099-01-01"))
    page = operator.get(LIST).content.decode()
    assert [page.count(f">{word}<") for word in ("now", "not any more", "later")] == [1, 1, 1]


def test_the_catalogues_prices_cannot_be_changed_or_deleted(operator: Client):
    row = catalogue("vendor")
    page = operator.get(f"{LIST}{row.pk}/change/")
    assert "A price that you enter goes before it" in page.content.decode()
    assert operator.post(f"{LIST}{row.pk}/change/", form()).status_code == 403
    assert operator.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    operator.post(LIST, {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"})
    row.refresh_from_db()
    assert row.provider == "vendor"


def test_ones_own_prices_can(operator: Client):
    operator.post(f"{LIST}add/", form())
    row = ModelPrice.objects.get()
    assert operator.post(f"{LIST}{row.pk}/change/", form(output_usd="0.75")).status_code == 302
    row.refresh_from_db()
    assert str(row.output_usd) == "0.75000000"
    assert operator.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not ModelPrice.objects.exists()


@pytest.mark.parametrize("wrong", [{"input_usd": "-1"}, {"input_usd": "cheap"}, {"provider": ""}, {"effective_from_0": "soon"}])
def test_a_wrong_form_keeps_what_was_typed(operator: Client, wrong):
    answer = operator.post(f"{LIST}add/", form(model="half-typed", **wrong))
    assert answer.status_code == 200
    assert "Constraint" not in answer.content.decode()
    assert 'value="half-typed"' in answer.content.decode()
    assert not ModelPrice.objects.exists()


def test_two_prices_from_one_moment_are_refused_in_words(operator: Client):
    operator.post(f"{LIST}add/", form())
    assert "There is a price of this model from this very moment on." in operator.post(f"{LIST}add/", form()).content.decode()


def test_how_far_our_token_counts_are_from_the_vendors_is_shown(operator: Client):
    provider = make_provider(slug=unique("vendor"), default_model="swift")
    make_agent(provider=provider)
    catalogue(provider.slug)
    assert "no usage compared yet" in operator.get(LIST).content.decode()
    called = {"provider": provider.slug, "model": "swift"}
    for reported in (120, 130, 120, 130, 125):
        settle(open_attempt(**called), prompt_tokens=reported, counted_prompt_tokens=100, **called)
    page = operator.get(LIST).content.decode()
    assert "ours times 1.25" in page
    assert "off by 3.2% of what 5 calls reported" in page
