"""People, conversations and turns: the rows that hold what was said; passages, sentences and postings: what of it is recalled by."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F, Q
from pgvector.django import HalfVectorField


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
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="subject_once_per_owner")]

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


class Conversation(models.Model):
    """A session of one subject with one agent. `session_id` is unique per owner and agent."""

    id = models.BigAutoField(primary_key=True)
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="conversations")
    owner = models.CharField(max_length=100)
    agent = models.CharField(max_length=63, help_text="The agent's slug; a plain value, so that history outlives the agent.")
    session_id = models.CharField(max_length=128)
    last_seq = models.PositiveIntegerField(default=0, help_text="The newest turn's number, allocated under this row's lock.")
    created_at = models.DateTimeField(auto_now_add=True)
    last_turn_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "agent", "session_id"], name="session_once_per_owner_and_agent")]

    def __str__(self) -> str:
        return f"{self.agent}/{self.session_id}"


class TurnState(models.TextChoices):
    """How far a turn is, or how it ended (docs/chat-request.md)."""

    RUNNING = "running", "running"
    DONE = "done", "done"
    CANCELLED = "cancelled", "cancelled: the client left"
    INTERRUPTED = "interrupted", "interrupted: broke midway"
    FAILED = "failed", "failed: no text"


class Turn(models.Model):
    """One message and its reply. Stored before the model is called, finished once, then never changed."""

    id = models.UUIDField(primary_key=True, editable=False, help_text="UUIDv7; the API's message_id.")
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="turns")
    seq = models.PositiveIntegerField()
    state = models.CharField(max_length=11, choices=TurnState.choices, default=TurnState.RUNNING)
    agent = models.CharField(max_length=63)
    version = models.PositiveIntegerField(help_text="The number of the agent's version that answered.")
    message = models.TextField()
    reply = models.TextField(default="", blank=True)
    provider = models.CharField(max_length=63, default="", blank=True)
    model = models.CharField(max_length=200, default="", blank=True)
    finish_reason = models.CharField(max_length=40, default="", blank=True)
    error_code = models.CharField(max_length=40, default="", blank=True)
    prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    completion_tokens = models.PositiveIntegerField(null=True, blank=True)
    usage_estimated = models.BooleanField(default=False, help_text="The upstream reported no usage; the counts are ours.")
    metadata = models.JSONField(default=dict, blank=True)
    request_id = models.CharField(max_length=64, default="", blank=True)
    created_at = models.DateTimeField()
    deadline_at = models.DateTimeField(help_text="A turn still running after this was left behind by a process that died.")
    first_token_ms = models.PositiveIntegerField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    remember = models.BooleanField(
        default=False, db_default=False, help_text="The version that answered has long-term memory: a worker puts the turn there."
    )
    remembered_at = models.DateTimeField(null=True, blank=True, help_text="When that was done.")

    class Meta:
        ordering = ["conversation", "seq"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "seq"], name="seq_once_per_conversation"),
            models.CheckConstraint(condition=Q(state__in=TurnState.values), name="turn_state_is_known"),
            models.CheckConstraint(
                condition=Q(state=TurnState.RUNNING, finished_at=None) | (~Q(state=TurnState.RUNNING) & Q(finished_at__isnull=False)),
                name="turn_finished_unless_running",
            ),
            models.CheckConstraint(condition=~Q(state=TurnState.FAILED) | Q(reply=""), name="failed_turn_has_no_text"),
            models.CheckConstraint(condition=Q(deadline_at__gt=F("created_at")), name="turn_deadline_after_start"),
        ]
        indexes = [
            models.Index(fields=["deadline_at"], condition=Q(state=TurnState.RUNNING), name="turn_running"),
            models.Index(fields=["agent", "created_at"], name="turn_by_agent_and_day"),
            # The workers' queue: as small as what is left to do.
            models.Index(fields=["finished_at"], condition=Q(remember=True, remembered_at=None), name="turn_to_remember"),
        ]

    def __str__(self) -> str:
        return f"{self.agent} turn {self.seq}"


class MemoryOwner(models.Model):
    """Whose memories: one agent's of one subject. Nothing is ever recalled across owners."""

    id = models.BigAutoField(primary_key=True)
    agent = models.CharField(max_length=63, help_text="The agent's slug; a plain value, so that memories outlive the agent.")
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="memory_owners")
    user_name = models.CharField(max_length=100, default="", blank=True, help_text="The person's first name, where it is known.")
    agent_name = models.CharField(max_length=100, default="", blank=True, help_text="The name people call the agent by, where it is known.")
    busy_until = models.DateTimeField(null=True, blank=True, help_text="A worker is embedding this owner's turns, at most until then.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "memory_owner"
        constraints = [models.UniqueConstraint(fields=["agent", "subject"], name="memory_owner_once")]

    def __str__(self) -> str:
        return f"{self.agent} of {self.subject_id}"


class EmbeddingSpace(models.Model):
    """What an embedding model makes of texts. Vectors are only ever compared within one space."""

    id = models.SmallAutoField(primary_key=True)
    model = models.CharField(max_length=200)
    dimensions = models.PositiveSmallIntegerField()
    is_active = models.BooleanField(default=False, help_text="The one that is written and recalled.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "dimensions"], name="embedding_space_once"),
            models.UniqueConstraint(fields=["is_active"], condition=Q(is_active=True), name="one_active_embedding_space"),
            models.CheckConstraint(condition=Q(dimensions__gt=0), name="embedding_space_has_dimensions"),
        ]

    def __str__(self) -> str:
        return f"{self.model} ({self.dimensions})"


class DateMultiRangeField(models.Field):  # type: ignore[type-arg] # not subscriptable at run time
    """Several ranges of days; psycopg reads it as a `Multirange`."""

    def db_type(self, connection: Any) -> str:
        return "datemultirange"


class Speaker(models.TextChoices):
    USER = "user", "the person"
    AGENT = "agent", "the agent"


class Passage(models.Model):
    """What can be recalled: one side of a turn, or a part of one side where that is long.

    `seq` is its place among its owner's passages. It leaves a gap of 10 wherever another session begins or goes on, so that
    `seq - 2` to `seq + 2` are its neighbours in its session, and never anybody else's words. `length` and what follows are the
    features of `memory.features`.
    """

    id = models.BigAutoField(primary_key=True)
    owner = models.ForeignKey(MemoryOwner, on_delete=models.CASCADE, related_name="passages", db_index=False)
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, null=True, blank=True, related_name="passages", db_index=False)
    session = models.BigIntegerField(help_text="The conversation's id; a plain value.")
    seq = models.IntegerField()
    speaker = models.CharField(max_length=5, choices=Speaker.choices)
    part = models.PositiveSmallIntegerField(default=0, help_text="Which part of a long text, from 0.")
    said_at = models.DateTimeField()
    text = models.TextField()
    content_hash = models.BinaryField(max_length=16, help_text="The first half of the text's SHA-256.")
    length = models.PositiveIntegerField(help_text="How many terms it has.")
    window_length = models.PositiveIntegerField(help_text="How many terms it and its neighbours have, two to each side.")
    word_count = models.PositiveIntegerField()
    asks = models.FloatField(help_text="The share of its words that stand in questions.")
    has_time = models.BooleanField()
    has_number = models.BooleanField()
    has_reason = models.BooleanField()
    has_name = models.BooleanField()
    spans = DateMultiRangeField(help_text="The days it speaks of.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "seq"], name="passage_place_once"),
            models.UniqueConstraint(fields=["turn", "owner", "speaker", "part"], name="passage_once_per_turn_and_speaker"),
            models.CheckConstraint(condition=Q(speaker__in=Speaker.values), name="passage_speaker_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.speaker}: {self.text[:60]}"


class Sentence(models.Model):
    """A sentence's vector. Rows are never updated, and are deleted with their passage (by a trigger).

    The primary key's index holds the other columns too (migration 0002), so that recall reads an owner's vectors from it alone.
    """

    pk = models.CompositePrimaryKey("owner_id", "space_id", "seq", "place")
    owner = models.ForeignKey(MemoryOwner, on_delete=models.CASCADE, related_name="+", db_index=False)
    space = models.ForeignKey(EmbeddingSpace, on_delete=models.PROTECT, related_name="+", db_index=False)
    seq = models.IntegerField(help_text="Its passage's place.")
    place = models.PositiveSmallIntegerField(help_text="Its own place in its passage, from 0.")
    words = models.PositiveIntegerField()
    is_question = models.BooleanField()
    embedding = HalfVectorField(help_text="Of length 1.")

    def __str__(self) -> str:
        return f"sentence {self.place} of {self.owner_id}/{self.seq}"


class Posting(models.Model):
    """That a passage holds a term. As for sentences: never updated, deleted with the passage, read from the index alone."""

    pk = models.CompositePrimaryKey("owner_id", "term", "seq")
    owner = models.ForeignKey(MemoryOwner, on_delete=models.CASCADE, related_name="+", db_index=False)
    term = models.CharField(max_length=100)
    seq = models.IntegerField(help_text="The passage's place.")
    frequency = models.PositiveIntegerField()
    in_question = models.BooleanField()

    def __str__(self) -> str:
        return f"{self.term} in {self.owner_id}/{self.seq}"
