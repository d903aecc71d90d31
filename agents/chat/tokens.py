from observability.tokens import count_tokens

__all__ = ["count_tokens"]
