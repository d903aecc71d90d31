"""Why no vectors came."""

from __future__ import annotations


class EmbeddingFailed(Exception):
    """No vectors came.

    Attributes:
        is_final: these texts will never be embedded; anything else may pass.
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class EmbeddingRefused(EmbeddingFailed):
    """A budget leaves no room for the call, so it was not made."""
