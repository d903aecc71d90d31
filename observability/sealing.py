"""Secrets that are stored are sealed: encrypted with Fernet under a key derived from SECRET_KEY, a different one for each purpose.

While SECRET_KEY is rotated, SECRET_KEY_FALLBACKS holds the earlier value: what was sealed under it can still be read.
"""

from __future__ import annotations

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.utils.encoding import force_bytes


class Unreadable(Exception):
    """What was sealed cannot be opened: SECRET_KEY changed since."""


def seal(secret: str, *, purpose: bytes) -> str:
    """Return `secret` encrypted, for a column of the database."""
    return _fernet(purpose).encrypt(secret.encode()).decode()


def unseal(sealed: str, *, purpose: bytes) -> str:
    """Return what `seal` was given.

    Raises:
        Unreadable: SECRET_KEY changed since, and SECRET_KEY_FALLBACKS does not hold the earlier one.
    """
    try:
        return _fernet(purpose).decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise Unreadable from None


def _fernet(purpose: bytes) -> MultiFernet:
    return _fernet_of(purpose, (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@lru_cache(maxsize=8)
def _fernet_of(purpose: bytes, secrets: tuple[str | bytes, ...]) -> MultiFernet:
    return MultiFernet([Fernet(_derived(purpose, secret)) for secret in secrets])


def _derived(purpose: bytes, secret: str | bytes) -> bytes:
    return base64.urlsafe_b64encode(HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(force_bytes(secret)))
