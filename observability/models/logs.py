"""Changes of the log's level at run time."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q


class LogLevel(models.Model):
    """The level of all processes' logs, from `set_at` until `until`, or until the next row; then LOG_LEVEL holds again."""

    class Level(models.TextChoices):
        DEBUG = "DEBUG", "DEBUG: everything"
        INFO = "INFO", "INFO: what happens"
        WARNING = "WARNING", "WARNING: what may need somebody"
        ERROR = "ERROR", "ERROR: what went wrong"

    id = models.BigAutoField(primary_key=True)
    level = models.CharField(max_length=7, choices=Level.choices)
    set_at = models.DateTimeField("from")
    until = models.DateTimeField()
    set_by = models.CharField("by", max_length=150)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(level__in=["DEBUG", "INFO", "WARNING", "ERROR"]), name="log_level_is_known"),
            models.CheckConstraint(condition=Q(until__gte=F("set_at")), name="log_level_ends_after_it_begins"),
        ]

    def __str__(self) -> str:
        return f"{self.level} until {self.until:%Y-%m-%d %H:%M} UTC"
