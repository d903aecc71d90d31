"""Passages: what can be recalled, and what was."""

from __future__ import annotations

from typing import Any, Final

from django.db import models
from django.db.models import F, Q

from memory.models.conversations import Turn
from memory.models.people import MemoryOwner


class DateMultiRangeField(models.Field):  # type: ignore[type-arg] # not subscriptable at run time
    """Several ranges of days; psycopg reads it as a `Multirange`."""

    def db_type(self, connection: Any) -> str:
        return "datemultirange"


class Speaker(models.TextChoices):
    USER = "user", "the person"
    AGENT = "agent", "the agent"
    NOTE = "note", "a note"


class Origin(models.TextChoices):
    """Where a passage comes from."""

    TURN = "turn", "said in a conversation"
    FACT = "fact", "a fact that was told"
    MODEL = "model", "a fact that a model read"
    ADDED = "added", "written by hand"


READ: Final = (Origin.FACT, Origin.MODEL)
# What the database function rank_memory looks at of every passage of an owner.
RANKED_BY: Final = (
    *("session", "length", "window_length", "word_count", "turn", "valid_until", "said_at", "spans"),
    *("speaker", "asks", "has_time", "has_number", "has_reason", "has_name"),
)


class Passage(models.Model):
    """What can be recalled: one side of a turn, or a part of one side where that is long; a fact; a note.

    `seq` is its place among its owner's passages. Those of turns count from 0, with a gap of 10 wherever another session begins
    or goes on, so that `seq - 2` to `seq + 2` are its neighbours in its session, and never anybody else's words. What stands
    alone (facts, notes) counts down from -10 in steps of 10 and is a session of its own. `length` and what follows are the
    features of `memory.features`.

    A passage with `valid_until` is history: it is shown, and never recalled.
    """

    id = models.BigAutoField(primary_key=True)
    owner = models.ForeignKey(MemoryOwner, on_delete=models.CASCADE, related_name="passages", db_index=False)
    origin = models.CharField(max_length=5, choices=Origin.choices, default=Origin.TURN, db_default=Origin.TURN)
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, null=True, blank=True, related_name="passages")
    session = models.BigIntegerField(help_text="The conversation's id, a plain value; of what stands alone, its `seq`.")
    seq = models.IntegerField()
    speaker = models.CharField(max_length=5, choices=Speaker.choices)
    part = models.PositiveSmallIntegerField(default=0, help_text="Which part of a long text, from 0.")
    said_at = models.DateTimeField()
    text = models.TextField()
    content_hash = models.BinaryField(max_length=16, help_text="The first half of the text's SHA-256.")
    attribute = models.CharField(max_length=100, default="", db_default="", blank=True, help_text="What a fact is about, such as `name`.")
    source = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="read_from_it", db_constraint=False, db_index=False
    )
    valid_until = models.DateTimeField(null=True, blank=True, help_text="When it stopped being true.")
    superseded_by = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="supersedes", db_constraint=False, db_index=False
    )
    pinned_at = models.DateTimeField(null=True, blank=True, help_text="Somebody wants it kept: no cap and no age limit takes it.")
    author = models.CharField(max_length=100, default="", db_default="", blank=True, help_text="Who wrote it by hand.")
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
            # Recall reads all passages of an owner, in this order, and of them these columns: a whole page of the table for each would
            # be most of what it reads, as an owner's rows lie far apart.
            models.UniqueConstraint(fields=["owner", "seq"], include=RANKED_BY, name="passage_in_order"),
            # What (owner, source), (owner, superseded_by) and (owner, recalled passage) refer to.
            models.UniqueConstraint(fields=["owner", "id"], name="passage_belongs_to_owner"),
            models.UniqueConstraint(
                fields=["turn", "owner", "speaker", "part"], condition=Q(origin=Origin.TURN), name="passage_once_per_turn_and_speaker"
            ),
            models.UniqueConstraint(
                fields=["turn", "owner", "attribute", "content_hash"], condition=Q(origin__in=READ), name="fact_once_per_turn"
            ),
            models.UniqueConstraint(
                fields=["owner", "content_hash"], condition=Q(origin=Origin.ADDED, valid_until=None), name="added_once_per_owner"
            ),
            models.CheckConstraint(condition=Q(speaker__in=Speaker.values), name="passage_speaker_is_known"),
            models.CheckConstraint(condition=Q(origin__in=Origin.values), name="passage_origin_is_known"),
            models.CheckConstraint(
                condition=Q(origin=Origin.TURN, seq__gte=0, turn__isnull=False) | (~Q(origin=Origin.TURN) & Q(seq__lt=0, session=F("seq"))),
                name="passage_stands_alone_unless_of_a_turn",
            ),
            models.CheckConstraint(condition=Q(superseded_by=None) | Q(valid_until__isnull=False), name="superseded_is_history"),
        ]
        indexes = [
            models.Index(fields=["owner", "attribute"], condition=~Q(attribute=""), name="passage_by_attribute"),
            models.Index(fields=["source"], condition=Q(source__isnull=False), name="passage_by_source"),
            models.Index(fields=["superseded_by"], condition=Q(superseded_by__isnull=False), name="passage_by_successor"),
        ]

    def __str__(self) -> str:
        return f"{self.speaker}: {self.text[:60]}"


class Recalled(models.Model):
    """That a turn's prompt held a memory, and why: the answer's trace, and when a memory was last of use."""

    pk = models.CompositePrimaryKey("turn_id", "passage_id")
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="recalled", db_index=False)
    owner = models.ForeignKey(MemoryOwner, on_delete=models.CASCADE, related_name="+", db_index=False)
    passage = models.ForeignKey(Passage, on_delete=models.CASCADE, related_name="recalls", db_constraint=False, db_index=False)
    position = models.PositiveSmallIntegerField(help_text="1 is the best.")
    score = models.FloatField()
    contributions = models.JSONField(default=dict, help_text="What each feature added to the score.")
    recalled_at = models.DateTimeField()

    class Meta:
        ordering = ["turn", "position"]
        indexes = [models.Index(fields=["owner", "passage"], name="recalled_by_passage")]

    def __str__(self) -> str:
        return f"{self.passage_id} in {self.turn_id}"
