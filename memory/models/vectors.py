"""What passages are found by: vectors of their sentences, in one space for each embedding model, and their words."""

from __future__ import annotations

from typing import Any, Final

from django.db import models
from django.db.models import Q
from pgvector.django import HalfVectorField

from memory.models.people import MemoryOwner

MOST_INDEXED_DIMENSIONS: Final = 1300


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

    @property
    def is_wide(self) -> bool:
        """Whether its vectors are too long for an index row (2,704 bytes), so that they are kept as `WideSentence`s."""
        return self.dimensions > MOST_INDEXED_DIMENSIONS


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


class VarBitField(models.Field):  # type: ignore[type-arg] # not subscriptable at run time
    """Bits, as many as a vector has dimensions; a text of 0s and 1s in Python."""

    def db_type(self, connection: Any) -> str:
        return "varbit"


class WideSentence(models.Model):
    """The vector of a sentence in a space of more dimensions than an index row can hold.

    As `Sentence`, but its index holds a sketch: the sign of each dimension. Recall ranks by the sketches and looks at the
    vectors of the closest alone.
    """

    pk = models.CompositePrimaryKey("owner_id", "space_id", "seq", "place")
    owner = models.ForeignKey(MemoryOwner, on_delete=models.CASCADE, related_name="+", db_index=False)
    space = models.ForeignKey(EmbeddingSpace, on_delete=models.PROTECT, related_name="+", db_index=False)
    seq = models.IntegerField(help_text="Its passage's place.")
    place = models.PositiveSmallIntegerField(help_text="Its own place in its passage, from 0.")
    words = models.PositiveIntegerField()
    is_question = models.BooleanField()
    sketch = VarBitField()
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
