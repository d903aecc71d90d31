"""The embedding space in use: which model's vectors are written and recalled."""

from __future__ import annotations

from memory.embedders.client import EmbeddingModel
from memory.models import EmbeddingSpace


class WrongSpace(Exception):
    """The settings name another embedding model than the one whose vectors are stored."""


def active_space() -> EmbeddingSpace | None:
    """Return the space in use; None where nothing was embedded yet."""
    return EmbeddingSpace.objects.filter(is_active=True).first()


def check_space(model: EmbeddingModel) -> None:
    """Prove that what `model` makes can be compared with what is stored.

    Raises:
        WrongSpace: it cannot; the text says what to do.
    """
    space = active_space()
    if space is None or (space.model == model.name and model.dimensions in (None, space.dimensions)):
        return
    asked = f"{model.name} ({model.dimensions})" if model.dimensions else model.name
    raise WrongSpace(
        f"Memories are embedded by {space}, and the settings now name {asked}. Name the former again (EMBEDDING_MODEL, "
        "EMBEDDING_DIMENSIONS, EMBEDDING_BASE_URL or EMBEDDER_URL): vectors of different models cannot be compared."
    )


def space_for(model: EmbeddingModel, *, dimensions: int) -> EmbeddingSpace:
    """Return the space in use for vectors that `model` made, and make it where there is none.

    Raises:
        WrongSpace: another one is in use.
    """
    check_space(model)
    space = active_space()
    if space is None:
        EmbeddingSpace.objects.bulk_create([EmbeddingSpace(model=model.name, dimensions=dimensions, is_active=True)], ignore_conflicts=True)
        check_space(model)
        space = EmbeddingSpace.objects.get(is_active=True)
    if space.dimensions != dimensions:
        raise WrongSpace(
            f"Memories are embedded by {space}, and {model.name} now gives {dimensions} dimensions. Correct EMBEDDING_DIMENSIONS."
        )
    return space
