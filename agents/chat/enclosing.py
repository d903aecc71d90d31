"""Laying what somebody wrote before a model as material, so that it cannot be taken for an instruction's end."""

from __future__ import annotations

import secrets


def enclose(**parts: str) -> str:
    """Return each part that is not empty between marks with its name. Nobody can guess them, so nothing within can end them."""
    mark = secrets.token_hex(4)
    return "\n\n".join(f"[{name.replace('_', ' ')} {mark}]\n{text}\n[end {mark}]" for name, text in parts.items() if text)
