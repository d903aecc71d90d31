"""Who somebody is, and whose memories there are."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class Subject(models.Model):
    """The one identity row of a person: who they are to the owner of a key, or an anonymous session.

    Everything that is kept about a person refers to this row's id, so that erasing it erases them.
    """

    id = models.BigAutoField(primary_key=True)
    owner = models.CharField(
        max_length=100, help_text="Whose namespace the name lives in: a key's owner, an editor, or an anonymous address."
    )
    name = models.CharField(max_length=200, help_text="The end user's id as the client gave it, or the session's.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "person"
        verbose_name_plural = "people"
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="subject_once_per_owner")]

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


class OwnerKind(models.TextChoices):
    """Whose memories, and who may hear them."""

    PERSON = "person", "one person's, with one agent"
    AGENT = "agent", "an agent's, for everybody who talks to it"
    SHARED = "shared", "a collection, for the agents that use it"


class MemoryOwner(models.Model):
    """Whose memories: one agent's of one subject, an agent's own, or a shared collection. Nothing is ever recalled across owners."""

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=6, choices=OwnerKind.choices, default=OwnerKind.PERSON, db_default=OwnerKind.PERSON)
    agent = models.CharField(
        max_length=63, default="", blank=True, help_text="The agent's slug; a plain value, so that memories outlive the agent."
    )
    subject = models.ForeignKey(Subject, null=True, blank=True, on_delete=models.CASCADE, related_name="memory_owners")
    collection = models.CharField(max_length=63, default="", db_default="", blank=True, help_text="The name of a shared collection.")
    user_name = models.CharField(max_length=100, default="", blank=True, help_text="The person's first name, where it is known.")
    agent_name = models.CharField(max_length=100, default="", blank=True, help_text="The name people call the agent by, where it is known.")
    busy_until = models.DateTimeField(null=True, blank=True, help_text="A worker is embedding this owner's turns, at most until then.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "memory_owner"
        verbose_name = "collection"  # the admin lists those; of the others it speaks by name
        verbose_name_plural = "shared knowledge"
        constraints = [
            models.UniqueConstraint(fields=["agent", "subject"], name="memory_owner_once"),
            models.UniqueConstraint(fields=["agent"], condition=Q(kind=OwnerKind.AGENT), name="memory_owner_once_per_agent"),
            models.UniqueConstraint(fields=["collection"], condition=Q(kind=OwnerKind.SHARED), name="memory_owner_once_per_collection"),
            models.CheckConstraint(
                condition=(Q(kind=OwnerKind.PERSON, subject__isnull=False, collection="") & ~Q(agent=""))
                | (Q(kind=OwnerKind.AGENT, subject=None, collection="") & ~Q(agent=""))
                | (Q(kind=OwnerKind.SHARED, subject=None, agent="") & ~Q(collection="")),
                name="memory_owner_is_of_one_kind",
            ),
        ]

    def __str__(self) -> str:
        match self.kind:
            case OwnerKind.AGENT:
                return f"{self.agent} for everybody"
            case OwnerKind.SHARED:
                return f"collection {self.collection}"
            case _:
                return f"{self.agent} of {self.subject_id}"


class Erasure(models.Model):
    """The receipt of a person's erasure: what was deleted, when and by whom, and nothing of what it was.

    `reference` is a keyed hash of the person's name, by which whoever knows the name finds the receipt again.
    """

    id = models.UUIDField(primary_key=True, editable=False, help_text="UUIDv7.")
    reference = models.CharField(max_length=64)
    actor = models.CharField(max_length=100, help_text="Who asked for it: a key's id, a person of the admin, the end user.")
    counts = models.JSONField(default=dict, help_text="Rows deleted, by kind.")
    erased_at = models.DateTimeField()
    took_ms = models.PositiveIntegerField()

    class Meta:
        ordering = ["-erased_at"]
        indexes = [models.Index(fields=["reference"], name="erasure_by_reference")]

    def __str__(self) -> str:
        return f"erasure {self.id}"
