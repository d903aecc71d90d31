"""Questions whose answers are in the reply cache, for versions that may answer one that only means the same."""

from __future__ import annotations

from django.db import models
from pgvector.django import HalfVectorField


class KeptQuestion(models.Model):
    """A question, what it means, and where Redis has its answer (docs/adr/0014-similar-questions-in-postgresql.md).

    It lives as long as the answer. The table is not logged: as the cache it belongs to, it may be lost.
    """

    key = models.CharField(primary_key=True, max_length=64, help_text="The reply cache's key.")
    scope = models.CharField(max_length=64, help_text="A digest of everything in the key but the question, and of the embedding model.")
    turn_id = models.UUIDField(help_text="The turn that got the answer.")
    question = models.TextField()
    embedding = HalfVectorField(help_text="Of length 1.")
    kept_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["scope", "-expires_at"], name="kept_questions_of_a_scope"),
            models.Index(fields=["turn_id"], name="kept_questions_of_a_turn"),
            models.Index(fields=["expires_at"], name="kept_questions_that_end"),
        ]

    def __str__(self) -> str:
        return f"the question of turn {self.turn_id}"
