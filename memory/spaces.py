"""The embedding space in use: which model's vectors are written and recalled.

Of the models that the settings name, the one whose vectors are stored is used, so that memory goes on while another is
changed to (`memory.reembedding`). That change is one transaction, which waits for those that write vectors, and they for it.
"""

from __future__ import annotations

from typing import Final

from django.db import connection

from memory.embedders import builtin
from memory.embedders.configured import DEFAULT_MODEL, EmbeddingModel, embedding_model, usable_models
from memory.models import EmbeddingSpace

# Any number, the same everywhere. Locks of this kind are granted in turn: a change of model waits for no endless row of writers.
_LOCK_KEY: Final = 0x5350_4143_4553
_SHARE: Final = "SELECT pg_advisory_xact_lock_shared(%s)"
_HOLD: Final = "SELECT pg_advisory_xact_lock(%s)"


class WrongSpace(Exception):
    """No model that the settings name made the vectors that are stored. The text says what to do."""


def active_space() -> EmbeddingSpace | None:
    """Return the space in use; None where nothing was embedded yet."""
    return EmbeddingSpace.objects.filter(is_active=True).first()


def model_of(space: EmbeddingSpace) -> EmbeddingModel | None:
    """Return the model, of those that the settings name, whose vectors `space` holds."""
    return next((model for model in usable_models() if model.makes(space.model, dimensions=space.dimensions)), None)


def model_in_use() -> EmbeddingModel | None:
    """Return the model to write and recall with; None where there is nothing to embed with and nothing was.

    Raises:
        WrongSpace: vectors are stored, and none of the models made them.
    """
    space = active_space()
    if space is None:
        return next(iter(usable_models()), None)
    model = model_of(space)
    if model is None and usable_models():
        raise WrongSpace(remedy_for(space))
    return model


def check_space(model: EmbeddingModel) -> None:
    """Prove that what `model` makes can be compared with what is stored.

    Raises:
        WrongSpace: it cannot.
    """
    space = active_space()
    if space is not None and not model.makes(space.model, dimensions=space.dimensions):
        raise WrongSpace(remedy_for(space))


def space_for(model: EmbeddingModel, *, dimensions: int) -> EmbeddingSpace:
    """Return the space in use for vectors that `model` made, and make it where there is none.

    Until the transaction ends, no other space comes into use.

    Raises:
        WrongSpace: another one is in use.
    """
    share_spaces()
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


def share_spaces() -> None:
    """Until the transaction ends, let no other space come into use."""
    with connection.cursor() as cursor:
        cursor.execute(_SHARE, [_LOCK_KEY])


def hold_spaces() -> None:
    """Until the transaction ends, let nobody write vectors to the space in use; those that do are waited for."""
    with connection.cursor() as cursor:
        cursor.execute(_HOLD, [_LOCK_KEY])


def remedy_for(space: EmbeddingSpace) -> str:
    """Say that no model made the vectors of `space`, and what to do."""
    named = embedding_model()
    found = f"Memories are embedded by {space}, and the settings now name {named or 'nothing that embeds'}. "
    target = f"EMBEDDING_NEXT_MODEL={named.name if named else DEFAULT_MODEL}"
    if space.model == builtin.MODEL:
        return found + (
            f"To go on with it, set EMBEDDING_MODEL={builtin.MODEL} (outside `make run` also run `manage.py embedder` and set "
            f"EMBEDDER_URL=http://127.0.0.1:8100/v1). To change to the other, set {target} as well and run `manage.py reembed`."
        )
    return found + (
        f"To go on with it, set EMBEDDING_MODEL={space.model} and EMBEDDING_DIMENSIONS={space.dimensions}, with EMBEDDING_BASE_URL and "
        f"EMBEDDING_API_KEY as they were. To change to the other, set {target} and the other EMBEDDING_NEXT_* as well and run "
        "`manage.py reembed`."
    )
