"""The embedding models that the settings name.

The one that EMBEDDING_* name is decided in this order: EMBEDDING_BASE_URL; the built-in embedder, where EMBEDDING_MODEL names it;
OpenAI, where OPENAI_API_KEY is set and no other address for it; the built-in embedder at EMBEDDER_URL. Without any of them there is
no long-term memory. EMBEDDING_NEXT_* name the one to change to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.conf import settings

from memory.embedders import builtin
from observability.api import ModelInUse

PROVIDER: Final = "embeddings"
"""What stands for the provider in prices and in the ledger: embedding models are configured in the environment, and have none."""
OPENAI_URL: Final = "https://api.openai.com/v1"
DEFAULT_MODEL: Final = "text-embedding-3-small"
DEFAULT_DIMENSIONS: Final = 512
MAX_DIMENSIONS: Final = 4000
"""What a `halfvec` can be indexed with, so that a large collection may get an index of its own; it is longer than any common model's."""


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """Where texts are embedded, and by what. `dimensions` None: as many as the model has."""

    base_url: str
    api_key: str
    name: str
    dimensions: int | None
    is_builtin: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.dimensions})" if self.dimensions else self.name

    def makes(self, name: str, *, dimensions: int) -> bool:
        """Tell whether its vectors are those of the model `name` with so many dimensions."""
        return self.name == name and self.dimensions in (None, dimensions)


def embedding_model() -> EmbeddingModel | None:
    """Return what EMBEDDING_* name; None: there is nothing to embed with."""
    return _model(
        name=settings.EMBEDDING_MODEL,
        base_url=settings.EMBEDDING_BASE_URL,
        api_key=settings.EMBEDDING_API_KEY,
        dimensions=settings.EMBEDDING_DIMENSIONS,
    )


def next_embedding_model() -> EmbeddingModel | None:
    """Return the model to change to, which EMBEDDING_NEXT_* name; None: none is named.

    Where they name no address it is the one of EMBEDDING_BASE_URL, unless the model is the built-in one.
    """
    if not (settings.EMBEDDING_NEXT_MODEL or settings.EMBEDDING_NEXT_BASE_URL):
        return None
    is_builtin = settings.EMBEDDING_NEXT_MODEL == builtin.MODEL
    same_address = settings.EMBEDDING_NEXT_BASE_URL in ("", settings.EMBEDDING_BASE_URL)
    return _model(
        name=settings.EMBEDDING_NEXT_MODEL,
        base_url=settings.EMBEDDING_NEXT_BASE_URL or ("" if is_builtin else settings.EMBEDDING_BASE_URL),
        api_key=settings.EMBEDDING_NEXT_API_KEY or (settings.EMBEDDING_API_KEY if same_address else ""),
        dimensions=settings.EMBEDDING_NEXT_DIMENSIONS,
    )


def usable_models() -> tuple[EmbeddingModel, ...]:
    """Return all models that there are: of EMBEDDING_*, of EMBEDDING_NEXT_*, and the built-in one where it runs.

    Which of them is used is a matter of whose vectors are stored: `memory.spaces.model_in_use`.
    """
    return tuple(model for model in (embedding_model(), next_embedding_model(), _builtin()) if model)


def list_models_in_use() -> list[ModelInUse]:
    """Return the embedding models that calls may be made of, for their prices."""
    return [ModelInUse(PROVIDER, model.name, model.base_url, is_free=model.is_builtin) for model in usable_models()]


def _model(*, name: str, base_url: str, api_key: str, dimensions: int) -> EmbeddingModel | None:
    if not base_url and name == builtin.MODEL:
        return _builtin()
    name = name or DEFAULT_MODEL
    length = dimensions or (DEFAULT_DIMENSIONS if name == DEFAULT_MODEL else None)
    if base_url:
        return EmbeddingModel(base_url, api_key, name, length)
    if settings.OPENAI_API_KEY and not settings.OPENAI_BASE_URL:
        return EmbeddingModel(OPENAI_URL, api_key or settings.OPENAI_API_KEY, name, length)
    return _builtin()


def _builtin() -> EmbeddingModel | None:
    if not settings.EMBEDDER_URL:
        return None
    return EmbeddingModel(settings.EMBEDDER_URL, "", builtin.MODEL, builtin.DIMENSIONS, is_builtin=True)
