"""Whether this web process was asked to stop: from then on each answer says that its connection will not be used again."""

from __future__ import annotations

_asked = False


def leave() -> None:
    """Note that this process was asked to stop."""
    global _asked
    _asked = True


def is_leaving() -> bool:
    """Tell whether this process was asked to stop."""
    return _asked
