"""What agents and API keys are called where somebody chooses one. Here they are plain values; who knows them says their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Choices = Sequence[tuple[str, str]]
_agents: list[Callable[[], Choices]] = []
_keys: list[Callable[[], Choices]] = []


def name_things_by(*, agents: Callable[[], Choices], keys: Callable[[], Choices]) -> None:
    """Let `agents` and `keys`, which may ask the database, list (value in the ledger, name to show) of all there are."""
    _agents[:] = [agents]
    _keys[:] = [keys]


def agent_choices() -> Choices:
    """Return every agent's address name and what it is called."""
    return [choice for choices in _agents for choice in choices()]


def key_choices() -> Choices:
    """Return every API key's public id and what it is called."""
    return [choice for choices in _keys for choice in choices()]
