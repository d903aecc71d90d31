"""What models cost."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class PriceSource(models.TextChoices):
    CATALOGUE = "catalogue", "the catalogue of public prices"
    MANUAL = "manual", "entered here"


class ModelPrice(models.Model):
    """What a model costs from a moment on, in US dollars per million tokens. A manual price goes before the catalogue's."""

    id = models.BigAutoField(primary_key=True)
    provider = models.CharField(max_length=63, help_text="The provider's name; a plain value.")
    model = models.CharField(max_length=200, help_text="The model's name, as agents ask for it.")
    source = models.CharField(max_length=9, choices=PriceSource.choices, default=PriceSource.MANUAL)
    effective_from = models.DateTimeField()
    input_usd = models.DecimalField("input (USD per million tokens)", max_digits=16, decimal_places=8)
    cached_input_usd = models.DecimalField(
        "cached input (USD per million tokens)",
        max_digits=16,
        decimal_places=8,
        null=True,
        blank=True,
        help_text="What of the prompt the vendor had in its cache. Empty: as other input.",
    )
    output_usd = models.DecimalField("output (USD per million tokens)", max_digits=16, decimal_places=8)
    tiers = models.JSONField(
        default=list,
        blank=True,
        help_text="Prices of long prompts: [{above_tokens, input_usd, cached_input_usd, output_usd}], the smallest first.",
    )
    context_tokens = models.PositiveIntegerField(null=True, editable=False, help_text="The most that the model reads; null: not known.")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["provider", "model", "-effective_from"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "model", "source", "effective_from"], name="one_price_at_a_time"),
            models.CheckConstraint(
                condition=Q(input_usd__gte=0, output_usd__gte=0) & (Q(cached_input_usd=None) | Q(cached_input_usd__gte=0)),
                name="prices_are_not_negative",
            ),
            models.CheckConstraint(condition=Q(source__in=PriceSource.values), name="price_source_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.model}"
