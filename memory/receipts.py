"""Receipts of erasures: what was deleted, when and by whom, and nothing of what it was.

A receipt knows whom it is about by keyed hashes alone: whoever knows the name finds it again, and nobody reads the name in it.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings

from memory.elsewhere import PENDING, Outcome
from memory.models import Erasure
from observability.api import run_burst
from observability.errors import NotFound

_HASH_BYTES: Final = 15


class ErasureNotFound(NotFound):
    """There is no such receipt, or it is none of the caller's."""

    code = "erasure-not-found"
    title = "Erasure not found"
    remedy = "Check the receipt's id; it is the 'id' that erasing a user returned."


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """That a person was erased: what was deleted, when and by whom, and nothing of what it was.

    `counts` has rows by kind, and entries by store; a store that has not confirmed yet has "pending".
    """

    id: UUID
    erased_at: datetime
    took_ms: int
    counts: dict[str, Outcome]
    actor: str

    @property
    def pending(self) -> tuple[str, ...]:
        """The stores that have not confirmed yet."""
        return tuple(name for name, outcome in self.counts.items() if outcome == PENDING)


async def read_receipt(erasure_id: UUID, *, owner: str, name: str | None = None) -> Receipt:
    """Return the receipt of an erasure in the namespace of `owner`; where `name` is given, of that person alone.

    Raises:
        ErasureNotFound: there is none.
    """
    return await run_burst(_read_receipt, erasure_id, owner=owner, name=name)


def reference_to(owner: str, name: str) -> str:
    """Return what a receipt says instead of a name: keyed hashes of the namespace, and of the name in it."""
    return _references(owner, name, secret_key=settings.SECRET_KEY)


async def confirm_entries(erasure_id: UUID, name: str, entries: int) -> None:
    await run_burst(_write_entries, erasure_id, name, entries)


def _write_entries(erasure_id: UUID, name: str, entries: int) -> None:
    row = Erasure.objects.select_for_update().get(id=erasure_id)
    row.counts[name] = entries
    row.save(update_fields=["counts"])


def _read_receipt(erasure_id: UUID, *, owner: str, name: str | None) -> Receipt:
    found = Erasure.objects.filter(id=erasure_id).first()
    if found is None or not _is_about(found.reference, owner, name):
        raise ErasureNotFound
    return receipt_of(found)


def receipt_of(row: Erasure) -> Receipt:
    return Receipt(id=row.pk, erased_at=row.erased_at, took_ms=row.took_ms, counts=dict(row.counts), actor=row.actor)


def _is_about(reference: str, owner: str, name: str | None) -> bool:
    for secret_key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        expected = _references(owner, name or "", secret_key=str(secret_key))
        given = reference
        if name is None:
            expected, given = expected.partition(":")[0], reference.partition(":")[0]
        if hmac.compare_digest(expected.encode(), given.encode()):
            return True
    return False


def _references(owner: str, name: str, *, secret_key: str) -> str:
    return f"{_hash(owner, secret_key=secret_key)}:{_hash(f'{owner}/{name}', secret_key=secret_key)}"


def _hash(text: str, *, secret_key: str) -> str:
    key = b"erasure:" + secret_key.encode()
    return base64.urlsafe_b64encode(hmac.digest(key, text.encode(errors="surrogatepass"), "sha256")[:_HASH_BYTES]).decode()
