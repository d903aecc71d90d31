"""Runs of the periodic jobs that keep memory small."""

from __future__ import annotations

from django.db import models


class UpkeepRun(models.Model):
    """One run: how far it is, and what it deleted, or would delete."""

    id = models.BigAutoField(primary_key=True)
    is_dry = models.BooleanField(default=False, help_text="It only counted.")
    actor = models.CharField(max_length=100, help_text="The worker, a command, or a person of the admin.")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    done = models.PositiveIntegerField(default=0, help_text="Steps done.")
    total = models.PositiveIntegerField(default=0, help_text="Steps in all.")
    counts = models.JSONField(default=dict, help_text="Rows deleted, by agent and reason.")
    error = models.CharField(max_length=500, default="", blank=True)

    class Meta:
        ordering = ["-started_at"]

    def __str__(self) -> str:
        return f"upkeep {self.started_at:%Y-%m-%d %H:%M}"
