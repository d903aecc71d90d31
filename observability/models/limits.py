"""Rate limits: how much of the server one caller may use."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class LimitScope(models.TextChoices):
    ADDRESS = "address", "each address without a key"
    SESSION = "session", "each session or end user"
    KEY = "key", "each API key"
    AGENT = "agent", "each agent"


class Limit(models.Model):
    """A limit for everything of one scope, or for one thing in it (`name`), which then goes before the general one.

    Empty means no limit.
    """

    id = models.BigAutoField(primary_key=True)
    scope = models.CharField("for", max_length=7, choices=LimitScope.choices)
    name = models.CharField(max_length=100, blank=True, default="", help_text="One key's prefix, or one agent's address name. Empty: each.")
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    concurrent = models.PositiveIntegerField("answers at once", null=True, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["scope", "name"]
        constraints = [
            models.UniqueConstraint(fields=["scope", "name"], name="one_limit_each"),
            models.CheckConstraint(condition=Q(scope__in=LimitScope.values), name="limit_scope_is_known"),
            models.CheckConstraint(
                condition=Q(scope__in=("key", "agent")) | Q(name=""), name="only_keys_and_agents_have_limits_of_their_own"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_scope_display()} {self.name}".strip()
