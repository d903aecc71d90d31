"""API keys and those they belong to."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone
from rest_framework_api_key.models import AbstractAPIKey, APIKeyManager

from .agents import Agent
from .providers import validate_slug


class Scope(models.TextChoices):
    """What a key may be used for. A key without scopes is good for nothing."""

    CHAT = "chat", "chat: send messages, and issue tokens for end users"
    READ_CONVERSATIONS = "read_conversations", "read conversations"
    MANAGE_MEMORIES = "manage_memories", "manage memories: list, correct and forget what is known about users"
    MANAGE_KNOWLEDGE = "manage_knowledge", "manage knowledge: list, add, correct and forget what an agent knows for everybody"
    PINNED_VERSIONS = "pinned_versions", "pinned versions: choose an earlier published version of an agent"
    USAGE = "usage", "usage: read what was used and what it cost"
    ERASE = "erase", "erase: delete everything about a user"
    MANAGE_KEYS = "manage_keys", "manage keys: make, rotate and revoke its owner's keys that open no more than itself"


class KeyOwner(models.Model):
    """A client of this server: a team, a website, a customer. Its keys share the users and sessions that they name."""

    name = models.CharField(max_length=100, help_text="Who uses the keys: a team, a website, a customer.")
    slug = models.CharField(
        "short name", max_length=63, unique=True, validators=[validate_slug], help_text="A name for commands, such as web-shop."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class KeyManager(APIKeyManager):
    """Makes keys as the library does, but keeps the hash out of the primary key, which stands in addresses and logs."""

    def assign_key(self, obj: AbstractAPIKey) -> str:
        key, obj.prefix, obj.hashed_key = self.key_generator.generate()
        return key


class ApiKey(AbstractAPIKey):
    """A secret that a client sends, of which only a hash is kept, and what it opens. `prefix` is the key's public id."""

    id = models.BigAutoField(primary_key=True)  # type: ignore[assignment] # the library's is a text that holds the hash
    name = models.CharField(max_length=50, help_text="What the key is for, such as 'web shop, production'.")
    owner = models.ForeignKey(
        KeyOwner,
        on_delete=models.PROTECT,
        related_name="keys",
        help_text="Keys of one owner share the users and sessions that they name. It cannot change later.",
    )
    all_agents = models.BooleanField("every agent", default=False, help_text="The key may use every agent, also those that are made later.")
    agents = models.ManyToManyField(
        Agent, blank=True, related_name="keys", help_text="The agents that the key may use, public ones included. None: none at all."
    )
    scopes = ArrayField(models.CharField(max_length=32, choices=Scope.choices), default=list, blank=True)
    replaces = models.OneToOneField(
        "self", null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="successor", help_text="Rotated from it."
    )
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+")
    last_used_at = models.DateTimeField("last used", null=True, blank=True, editable=False, help_text="Within a minute or so.")

    objects: ClassVar[KeyManager] = KeyManager()

    class Meta(AbstractAPIKey.Meta):
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        constraints = [
            models.CheckConstraint(condition=Q(scopes__contained_by=list(Scope.values)), name="key_scopes_are_known"),
        ]

    def is_usable(self, *, at: datetime | None = None) -> bool:
        """Whether the key is neither revoked nor expired."""
        return not self.revoked and (self.expiry_date is None or self.expiry_date > (at or timezone.now()))
