"""What the agents' domain errors share. The errors themselves stand beside the code that raises them."""

from __future__ import annotations

from observability.errors import ChatbotError


class Conflict(ChatbotError):
    """What was asked does not fit the state that things are in now."""

    code = "conflict"
    status = 409
    title = "Not possible now"
    remedy = "Look at the current state, then decide again."
