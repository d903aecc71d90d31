"""What must hold when a person changes a provider: a key goes only where somebody who knows it sends it.

Whoever may edit providers could otherwise point one at a server of their own and read the key that arrives there.
So a new destination demands the key again: typed anew where it is stored, and typed as proof where an environment variable
holds it. `manage.py setup` is outside this rule: it takes address and key from the environment alone.
"""

from __future__ import annotations

from hmac import compare_digest

from django.core.exceptions import ValidationError

from agents.models import Provider

from .keys import UnreadableKey, seal, value_of


def check_change(provider: Provider, *, typed_key: str = "", forget: bool = False) -> None:
    """Check the unsaved `provider` against its row in the database, before `apply_key`.

    `typed_key` is what the person typed, "" if nothing; `forget` that the stored key shall go.

    Raises:
        ValidationError: keyed by `key_variable` or `key`, each with what to do.
    """
    old = Provider.objects.filter(pk=provider.pk).first() if provider.pk else None
    if typed_key:
        _check_usable(typed_key)
    if provider.key_variable:
        if _moved(old, provider) or (old is not None and old.key_variable != provider.key_variable):
            _check_proof(provider.key_variable, typed_key=typed_key)
    elif old is not None and old.encrypted_key and _moved(old, provider) and not typed_key and not forget:
        raise ValidationError({"key": "The address changed: enter the key again, or tick the box that forgets it."})


def apply_key(provider: Provider, *, typed_key: str = "", forget: bool = False) -> None:
    """Put `typed_key` into the unsaved `provider`, encrypted; a key in an environment variable leaves nothing stored.

    Call it after `check_change`.
    """
    if provider.key_variable or (forget and not typed_key):
        provider.encrypted_key = ""
    elif typed_key:
        provider.encrypted_key = seal(typed_key)


def _check_usable(typed_key: str) -> None:
    try:
        seal(typed_key)
    except ValueError as error:
        raise ValidationError({"key": str(error)}) from None


def _check_proof(variable: str, *, typed_key: str) -> None:
    try:
        expected = value_of(variable)
    except UnreadableKey as error:
        raise ValidationError({"key_variable": error.detail}) from None
    # A variable that is not set has nothing to give away.
    if expected and not compare_digest(expected.encode(), typed_key.encode()):
        raise ValidationError({"key": f"Type the key that {variable} holds: it would be sent to an address that it did not go to before."})


def _moved(old: Provider | None, new: Provider) -> bool:
    # The whole address: on a shared host the path alone may lead to somebody else.
    return old is None or old.base_url.rstrip("/") != new.base_url.rstrip("/")
