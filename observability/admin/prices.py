"""Prices: those of the catalogue, to look at, and those that somebody enters, which go before them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from observability.calibration import EXACT, Calibration, read_calibrations
from observability.catalogue import unpriced_models
from observability.models import ModelPrice, PriceSource
from observability.prices import price_list
from observability.tokens import is_counted_exactly

from .figures import bound, per_million

if TYPE_CHECKING:
    PriceModelForm = forms.ModelForm[ModelPrice]
else:
    PriceModelForm = forms.ModelForm


class PriceForm(PriceModelForm):
    """A price that holds from a moment on."""

    class Meta:
        model = ModelPrice
        fields = ("provider", "model", "input_usd", "cached_input_usd", "output_usd", "effective_from")
        labels = {"effective_from": "Holds from (UTC)"}
        help_texts = {
            "provider": "The provider's name, as under Providers; embeddings for the embedding model.",
            "model": "The model's name, exactly as agents ask for it.",
            "input_usd": "0 for a model of your own.",
            "effective_from": "What was called before keeps the price that it had.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        bound(self.fields, "input_usd", "cached_input_usd", "output_usd")

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        alike = ModelPrice.objects.filter(
            source=PriceSource.MANUAL, **{name: data.get(name) for name in ("provider", "model", "effective_from")}
        )
        if not self.errors and alike.exclude(pk=self.instance.pk).exists():
            self.add_error(
                "effective_from", "There is a price of this model from this very moment on. Change that one, or choose another moment."
            )
        return data


@admin.register(ModelPrice)
class ModelPriceAdmin(ModelAdmin):
    """What models cost. Rows of the catalogue are renewed by themselves, so nobody changes them."""

    form = PriceForm
    list_display = ("model_name", "provider", "state", "input", "cached_input", "output", "tokens", "since")
    list_display_links = ("model_name",)
    list_filter = ("source",)
    search_fields = ("provider", "model")
    search_help_text = "Search for a provider or a model."
    change_list_template = "admin/observability/prices_list.html"
    change_form_before_template = "admin/observability/price_before.html"

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = {"title": "Prices", "unpriced": unpriced_models(), "nothing": not ModelPrice.objects.exists()}
        response: HttpResponse = super().changelist_view(request, {**own, **(extra_context or {})})
        return response

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist, now, learned = super().get_changelist_instance(request), _held_now(), read_calibrations()
        changelist.result_list = list(changelist.result_list)
        for price in changelist.result_list:
            price.holds = now.get((price.provider, price.model)) == price.pk
            price.calibration = learned.get((price.provider, price.model), EXACT)
        return changelist

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        asked = {name: request.GET.get(name, "") for name in ("provider", "model")}
        return {"effective_from": timezone.now().replace(second=0, microsecond=0), **asked}

    def has_change_permission(self, request: HttpRequest, obj: ModelPrice | None = None) -> bool:
        allowed: bool = super().has_change_permission(request, obj)
        return allowed and (obj is None or obj.source == PriceSource.MANUAL)

    def has_delete_permission(self, request: HttpRequest, obj: ModelPrice | None = None) -> bool:
        allowed: bool = super().has_delete_permission(request, obj)
        return allowed and (obj is None or obj.source == PriceSource.MANUAL)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}  # one by one: a list that is deleted at once takes the catalogue's rows with it

    def save_model(self, request: HttpRequest, obj: ModelPrice, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        price_list.forget()
        when = "within 5 seconds" if obj.effective_from <= timezone.now() else f"from {obj.effective_from:%d %b %Y, %H:%M} UTC on"
        messages.info(request, f"Calls of {obj.model} at {obj.provider} are priced so {when}.")

    @admin.display(description="model", ordering="model")
    def model_name(self, price: ModelPrice) -> str:
        return price.model

    @admin.display(description="holds")
    def state(self, price: ModelPrice) -> SafeString:
        if price.effective_from > datetime.now(UTC):
            kind, word = "draft", "later"
        elif price.holds:  # type: ignore[attr-defined] # set by get_changelist_instance
            kind, word = "live", "now"
        else:
            kind, word = "quiet", "not any more"
        return format_html('<span class="ca-label ca-label-{}">{}</span>', kind, word)

    @admin.display(description="input (USD per million)", ordering="input_usd")
    def input(self, price: ModelPrice) -> str:
        tiers = "".join(f"; {per_million(Decimal(tier['input_usd']))} above {tier['above_tokens']:,} tokens" for tier in price.tiers)
        return per_million(price.input_usd) + tiers

    @admin.display(description="cached input", ordering="cached_input_usd")
    def cached_input(self, price: ModelPrice) -> str:
        return "as other input" if price.cached_input_usd is None else per_million(price.cached_input_usd)

    @admin.display(description="output", ordering="output_usd")
    def output(self, price: ModelPrice) -> str:
        tiers = "".join(f"; {per_million(Decimal(tier['output_usd']))} above {tier['above_tokens']:,}" for tier in price.tiers)
        return per_million(price.output_usd) + tiers

    @admin.display(description="token counts")
    def tokens(self, price: ModelPrice) -> SafeString:
        learned: Calibration = price.calibration  # type: ignore[attr-defined] # set by get_changelist_instance
        if is_counted_exactly(price.model):
            how, told = "as OpenAI publishes", f"{learned.samples} calls reported {learned.ratio:.3f} times as many"
        else:
            how = f"ours times {learned.ratio:.2f}" if learned.is_known else "ours"
            told = f"off by {learned.error:.1%} of what {learned.samples} calls reported"
        help_text = told if learned.is_known else "no usage compared yet"
        return format_html('<span class="ca-cell"><span>{}</span><span class="ca-help">{}</span></span>', how, help_text)

    @admin.display(description="from", ordering="effective_from")
    def since(self, price: ModelPrice) -> SafeString:
        source = "entered here" if price.source == PriceSource.MANUAL else "catalogue"
        cell = '<span class="ca-cell"><span>{}</span><span class="ca-help">since {} UTC</span></span>'
        return format_html(cell, source, f"{price.effective_from:%d %b %Y, %H:%M}")


def _held_now() -> dict[tuple[str, str], int]:
    """Return the id of the row that holds now, for each provider and model."""
    rows = ModelPrice.objects.filter(effective_from__lte=datetime.now(UTC)).order_by("source", "effective_from")  # manual rows last
    return {(provider, model): id for provider, model, id in rows.values_list("provider", "model", "id")}
