"""The providers whose models answer, and what may stand in their fields."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q

SLUG_PATTERN: Final = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
validate_slug = RegexValidator(SLUG_PATTERN, "Use 1 to 63 lower-case letters, digits and hyphens; start and end with a letter or digit.")
# Nobody who may edit a provider can have SECRET_KEY or DATABASE_URL sent to an address of their choice.
KEY_VARIABLE_PATTERN: Final = r"^[A-Z][A-Z0-9_]{0,91}_API_KEY$"
validate_variable_name = RegexValidator(
    KEY_VARIABLE_PATTERN, "Use the name of an environment variable that ends in _API_KEY, such as OPENAI_API_KEY."
)


# Django's own sentences for numbers say "Ensure this value is less than or equal to".
OUT_OF_BOUNDS: Final = {"min_value": "Enter at least %(limit_value)s.", "max_value": "Enter at most %(limit_value)s."}


def validate_base_url(url: str) -> None:
    """Accept http and https addresses of any host: `URLValidator` refuses the one-word names of container networks.

    Raises:
        ValidationError: says what to write instead.
    """
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and url.isascii()
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        usable = False
    if not usable:
        raise ValidationError("Enter an address such as https://api.openai.com/v1.")
    if parts.username or parts.password:
        raise ValidationError("Leave user name and password out of the address; store the key instead.")
    if parts.query or parts.fragment:
        raise ValidationError("Leave out everything after the path: no ? and no #.")


class Provider(models.Model):
    """An OpenAI-compatible API: an address, a key, and how long to wait for it."""

    slug = models.CharField(
        "name", max_length=63, unique=True, validators=[validate_slug], help_text="A short name, such as openai or local-llama."
    )
    base_url = models.CharField(
        "address", max_length=500, validators=[validate_base_url], help_text="Where the API lives, usually ending in /v1."
    )
    key_variable = models.CharField(
        "key from environment variable",
        max_length=100,
        blank=True,
        default="",
        validators=[validate_variable_name],
        help_text="The environment variable that holds the key. Leave empty to store a key here instead, or for a server that needs none.",
    )
    encrypted_key = models.TextField(blank=True, default="", editable=False)
    default_model = models.CharField(max_length=200, blank=True, default="", help_text="The model used by agents that name none.")
    is_default = models.BooleanField("default provider", default=False, help_text="Agents that name no provider use this one.")
    is_demo = models.BooleanField(default=False, editable=False, help_text="The built-in demo model; not for real answers.")
    from_environment = models.BooleanField(
        default=False, editable=False, help_text="Kept in step with OPENAI_API_KEY, OPENAI_BASE_URL and DEFAULT_CHAT_MODEL."
    )
    connect_timeout_s = models.FloatField(
        "connect timeout (seconds)", default=5, validators=[MinValueValidator(0.1), MaxValueValidator(60)]
    )
    first_token_timeout_s = models.FloatField(
        "first-token timeout (seconds)",
        default=30,
        validators=[MinValueValidator(0.1), MaxValueValidator(600)],
        help_text="How long to wait for the first word of an answer.",
    )
    between_tokens_timeout_s = models.FloatField(
        "between-token timeout (seconds)",
        default=20,
        validators=[MinValueValidator(0.1), MaxValueValidator(600)],
        help_text="How long a stream may stay silent.",
    )
    total_timeout_s = models.FloatField(
        "total timeout (seconds)",
        default=120,
        validators=[MinValueValidator(0.1), MaxValueValidator(900)],
        help_text="How long one answer may take in all.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["slug"]
        constraints = [
            models.UniqueConstraint(fields=["is_default"], condition=Q(is_default=True), name="one_default_provider"),
            models.CheckConstraint(condition=Q(key_variable="") | Q(encrypted_key=""), name="provider_key_from_one_place"),
        ]

    def __str__(self) -> str:
        return self.slug
