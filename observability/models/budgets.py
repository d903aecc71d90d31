"""Budgets: how much may be spent on what, in which period, and what of it is spent or promised."""

from __future__ import annotations

from collections.abc import Collection

from django.db import models
from django.db.models import F, Q


class BudgetScope(models.TextChoices):
    ALL = "all", "everything"
    AGENT = "agent", "one agent"
    KEY = "key", "one API key"
    USER = "user", "each end user"


class Period(models.TextChoices):
    DAY = "day", "a day"
    WEEK = "week", "a week, from Monday"
    MONTH = "month", "a month"


class OnUnknownPrice(models.TextChoices):
    REFUSE = "refuse", "refuse the call"
    ALLOW = "allow", "allow it; it counts as nothing spent"


class Budget(models.Model):
    """A sum of money, of tokens, or both, for each period. Holds before a call is made, not after the bill."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100, unique=True)
    is_active = models.BooleanField("active", default=True)
    scope = models.CharField("for", max_length=5, choices=BudgetScope.choices, default=BudgetScope.ALL)
    agent = models.CharField(max_length=63, blank=True, default="", help_text="The agent's address name; of users: only with this agent.")
    key = models.CharField(
        "API key",
        max_length=40,
        blank=True,
        default="",
        help_text="Its public id; of users: only with this key. Keys that it made or that take its place spend from it, too.",
    )
    period = models.CharField("every", max_length=5, choices=Period.choices, default=Period.MONTH)
    time_zone = models.CharField(max_length=63, default="UTC", help_text="In which periods begin, such as Europe/Berlin.")
    limit_usd = models.DecimalField("limit (USD)", max_digits=14, decimal_places=4, null=True, blank=True)
    limit_tokens = models.BigIntegerField("limit (tokens)", null=True, blank=True)
    on_unknown_price = models.CharField(max_length=6, choices=OnUnknownPrice.choices, default=OnUnknownPrice.REFUSE)
    cheaper_at = models.PositiveSmallIntegerField(
        "cheaper model from (%)",
        null=True,
        blank=True,
        help_text="From this share spent on, agents answer with their cheaper model, where they have one.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(scope__in=BudgetScope.values), name="budget_scope_is_known"),
            models.CheckConstraint(condition=Q(period__in=Period.values), name="budget_period_is_known"),
            models.CheckConstraint(condition=Q(limit_usd__isnull=False) | Q(limit_tokens__isnull=False), name="budget_limits_something"),
            models.CheckConstraint(
                condition=(Q(limit_usd=None) | Q(limit_usd__gte=0)) & (Q(limit_tokens=None) | Q(limit_tokens__gte=0)),
                name="budget_limits_are_not_negative",
            ),
            models.CheckConstraint(condition=~Q(scope=BudgetScope.AGENT) | ~Q(agent=""), name="agent_budget_names_its_agent"),
            models.CheckConstraint(condition=~Q(scope=BudgetScope.KEY) | ~Q(key=""), name="key_budget_names_its_key"),
            models.CheckConstraint(condition=Q(cheaper_at=None) | Q(cheaper_at__range=(1, 100)), name="cheaper_at_is_a_percentage"),
        ]

    def __str__(self) -> str:
        return self.name

    def applies_to(self, agent: str, *, payers: Collection[str]) -> bool:
        """Tell whether calls of `agent` with a key that spends from the budgets of `payers` are within what it is for."""
        return self.agent in ("", agent) and (not self.key or self.key in payers)


class SharedBudget(models.Model):
    """That an API key spends from the budgets of another one, too, which made it or whose place it takes. Never changed."""

    pk = models.CompositePrimaryKey("key", "payer")
    key = models.CharField(max_length=40, help_text="The public id of the one that spends.")
    payer = models.CharField(max_length=40, help_text="The public id of the one whose budgets it spends from.")

    class Meta:
        indexes = [models.Index(fields=["payer", "key"], name="shared_budget_by_payer")]

    def __str__(self) -> str:
        return f"{self.key} spends from {self.payer}'s"


class BudgetPeriod(models.Model):
    """What one budget has spent and promised in one period: of everybody (subject 0), or of one person."""

    id = models.BigAutoField(primary_key=True)
    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="periods", db_index=False)
    subject_id = models.BigIntegerField(default=0)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    spent_usd = models.DecimalField(max_digits=18, decimal_places=10, default=0, db_default=0)
    reserved_usd = models.DecimalField(max_digits=18, decimal_places=10, default=0, db_default=0)
    spent_tokens = models.BigIntegerField(default=0, db_default=0)
    reserved_tokens = models.BigIntegerField(default=0, db_default=0)
    refused_at = models.DateTimeField(null=True, help_text="Since then, calls have been refused: what is left does not cover them.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["budget", "subject_id", "starts_at"], name="budget_period_once"),
            models.CheckConstraint(
                condition=Q(spent_usd__gte=0, reserved_usd__gte=0, spent_tokens__gte=0, reserved_tokens__gte=0),
                name="budget_period_is_not_negative",
            ),
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="budget_period_ends_after_its_start"),
        ]
        # For the worker, which looks at all current periods every few seconds.
        indexes = [models.Index(fields=["ends_at"], name="budget_period_by_end")]

    def __str__(self) -> str:
        return f"{self.budget_id} from {self.starts_at:%Y-%m-%d}"


class Reservation(models.Model):
    """What an attempt may cost at worst, promised by one period until the attempt is settled: at the latest by the reaper,
    once its deadline is over."""

    pk = models.CompositePrimaryKey("attempt_id", "period_id")
    attempt_id = models.UUIDField()
    period = models.ForeignKey(BudgetPeriod, on_delete=models.CASCADE, related_name="reservations")
    usd = models.DecimalField(max_digits=18, decimal_places=10)
    tokens = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.usd} USD for {self.attempt_id}"
