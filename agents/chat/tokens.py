"""Token counts, for the doors above the chat turn: the admin shows them while a prompt is written."""

from observability.api import count_tokens

__all__ = ["count_tokens"]
