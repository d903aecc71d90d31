"""What the doctor found, for those who look at it in the admin."""

from __future__ import annotations

from django.db import models


class DoctorReport(models.Model):
    """A round of the doctor's. Only the newest few are kept."""

    id = models.BigAutoField(primary_key=True)
    examined_at = models.DateTimeField()
    examined_by = models.CharField(max_length=150)
    with_calls = models.BooleanField(help_text="Whether models and embedders were called.")
    seconds = models.FloatField()
    results = models.JSONField(help_text="A list of {name, grade, seen, remedy, seconds}.")

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"examined at {self.examined_at:%Y-%m-%d %H:%M} UTC"
