"""The history of what was live."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from .agents import Agent, AgentVersion


class Publication(models.Model):
    """Who made which version live, and when. Append-only: publishing and rolling back each add a row."""

    class Kind(models.TextChoices):
        PUBLISH = "publish", "published"
        ROLL_BACK = "roll_back", "rolled back"

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="publications")
    version = models.ForeignKey(AgentVersion, on_delete=models.CASCADE, related_name="publications")
    kind = models.CharField(max_length=9, choices=Kind.choices)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} v{self.version.number}"
