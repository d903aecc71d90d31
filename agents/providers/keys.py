"""Providers' keys: read from the environment, or stored sealed (`observability.sealing`). Nothing shows a stored key again."""

from __future__ import annotations

import os
import re
from typing import Final, Protocol

from django.conf import settings

from agents.models import KEY_VARIABLE_PATTERN
from observability import api
from observability.errors import ChatbotError

PURPOSE: Final = b"agents.providers.keys"
# HTTP header values: visible ASCII, no line breaks, nothing that a header could be smuggled with.
USABLE_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")


class KeyHolder(Protocol):
    """A provider, as a row or as a snapshot."""

    @property
    def slug(self) -> str: ...
    @property
    def key_variable(self) -> str: ...
    @property
    def encrypted_key(self) -> str: ...


class UnreadableKey(ChatbotError):
    """A stored key that SECRET_KEY no longer opens, or a key that no header can carry."""

    code = "provider-key-unreadable"
    status = 502
    title = "Failed to process message"
    remedy = "Enter the provider's key again in the admin: SECRET_KEY changed since it was stored."


def seal(key: str) -> str:
    """Return `key` encrypted, for `Provider.encrypted_key`; "" stays "".

    Raises:
        ValueError: the key holds spaces, line breaks or other characters that no HTTP header can carry.
    """
    if not key:
        return ""
    if not USABLE_KEY.fullmatch(key):
        raise ValueError("A key consists of letters, digits and punctuation, without spaces or line breaks. Copy it again.")
    return api.seal(key, purpose=PURPOSE)


def key_of(provider: KeyHolder) -> str:
    """Return the key that `provider` is called with; "" for a server that needs none, or when its variable is not set.

    Raises:
        UnreadableKey: the stored key cannot be decrypted, or the variable's value cannot be sent.
    """
    if provider.key_variable:
        return value_of(provider.key_variable)
    if not provider.encrypted_key:
        return ""
    try:
        return api.unseal(provider.encrypted_key, purpose=PURPOSE)
    except api.Unreadable:
        raise UnreadableKey(
            f"The stored key of the provider {provider.slug} cannot be read. Enter it again in the admin, "
            "or put the earlier SECRET_KEY into SECRET_KEY_FALLBACKS."
        ) from None


def value_of(variable: str) -> str:
    """Return the environment variable's value, "" if it is not set.

    Raises:
        UnreadableKey: it holds characters that no HTTP header can carry, or is no variable for keys.
    """
    if not re.fullmatch(KEY_VARIABLE_PATTERN, variable):
        raise UnreadableKey(f"{variable} is not read: variables for keys end in _API_KEY. Rename it.")
    # PROVIDER_KEYS are those of the .env file; the process's own environment wins.
    value: str = os.environ.get(variable) or settings.PROVIDER_KEYS.get(variable, "")
    if not value and variable == "OPENAI_API_KEY":
        value = settings.OPENAI_API_KEY
    value = value.strip()
    if value and not USABLE_KEY.fullmatch(value):
        raise UnreadableKey(f"{variable} holds characters that no key has, such as spaces or line breaks. Set it again.")
    return value
