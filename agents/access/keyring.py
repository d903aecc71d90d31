"""The API keys that this process has used lately, so that checking one costs no database query.

One query every other second looks again at all that were used meanwhile, beside the requests, and writes when they were used.
A key that was not looked at for `USABLE_FOR_S` is read before it is believed. So what an operator changes or revokes holds in
every process within five seconds, without messages between processes. Without its database the server says 503, never 401.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.contrib.postgres.aggregates import ArrayAgg
from django.db import Error as DatabaseError  # unlike its namesake in Django, with InterfaceError
from django.db.models import Q
from django.utils import timezone

from agents.access.callers import Caller
from agents.models import ApiKey
from observability.api import GroupCommit, run_burst
from observability.errors import Unauthorized

FRESH_FOR_S: Final = 2.0
USABLE_FOR_S: Final = 4.0
USE_WRITTEN_EVERY: Final = timedelta(minutes=1)
_MOST_HELD: Final = 10_000
_KEY: Final = re.compile(r"[A-Za-z0-9]{8}\.[A-Za-z0-9]{32}")
# What an unknown key is compared with, so that it is refused no faster than a wrong one.
_NOBODYS_HASH: Final = ApiKey.objects.key_generator.hash("nobody")


class InvalidKey(Unauthorized):
    """Unknown, wrong, revoked, expired or not even a key: all look alike."""

    title = "The API key or token is not valid"
    remedy = "Check the key, make a new token, or leave the Authorization header out to chat anonymously."


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is not revoked, and the caller who holds it."""

    hashed_key: str
    expires_at: datetime | None
    caller: Caller


@dataclass(slots=True)
class _Held:
    key: Key
    asked_at: float
    was_used: bool = True


class KeyRing:
    """Keys by their public id. That a key does not exist is remembered as well, so that guessing costs little."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._absences: dict[str, float] = {}
        self._reading: GroupCommit[str, Key | None] = GroupCommit(_read_keys, parallel=1)
        self._looking_again: asyncio.Task[None] | None = None

    async def caller_with(self, secret: str) -> Caller:
        """Return the caller who holds the key `secret`.

        Raises:
            InvalidKey: nobody does, any more.
            OperationalError: it is not known here, and the database cannot be asked.
        """
        if not _KEY.fullmatch(secret):
            raise InvalidKey
        try:
            key = await self.find(secret.partition(".")[0])
        except InvalidKey:
            _matches(secret, _NOBODYS_HASH)
            raise
        if not _matches(secret, key.hashed_key):
            raise InvalidKey
        return key.caller

    async def find(self, key_id: str) -> Key:
        """Return the key with this public id.

        Raises:
            InvalidKey: there is none, or it is revoked or expired.
            OperationalError: it is not known here, and the database cannot be asked.
        """
        held, now = self._held.get(key_id), time.monotonic()
        if held is None or now - held.asked_at > USABLE_FOR_S:
            held = await self._read(key_id)
            self._look_again()  # which writes that it was used
        held.was_used = True
        if now - held.asked_at > FRESH_FOR_S:
            self._look_again()
        if held.key.expires_at is not None and held.key.expires_at <= timezone.now():
            raise InvalidKey
        return held.key

    async def _read(self, key_id: str) -> _Held:
        asked_at = time.monotonic()
        if asked_at - self._absences.get(key_id, -FRESH_FOR_S) < FRESH_FOR_S:
            raise InvalidKey
        key = await self._reading.submit(key_id)
        if key is None:
            self._held.pop(key_id, None)
            if len(self._absences) >= _MOST_HELD:
                self._absences.clear()
            self._absences[key_id] = asked_at
            raise InvalidKey
        if len(self._held) >= _MOST_HELD:
            self._held.clear()
        held = self._held[key_id] = _Held(key, asked_at)
        return held

    def _look_again(self) -> None:
        if self._looking_again is None or self._looking_again.done():
            self._looking_again = asyncio.create_task(self._look())

    async def _look(self) -> None:
        asked_at = time.monotonic()
        used = {key_id for key_id, held in self._held.items() if held.was_used}
        for held in self._held.values():
            held.was_used = False
        try:
            keys = await run_burst(_note_use, sorted(used))
        except DatabaseError:
            return  # what is held soon counts no more, and then callers are told that the database is away
        for key_id in list(self._held):
            if key_id in keys:
                self._held[key_id] = _Held(keys[key_id], asked_at, was_used=self._held[key_id].was_used)
            elif key_id in used or asked_at - self._held[key_id].asked_at > USABLE_FOR_S:
                del self._held[key_id]


def _matches(secret: str, hashed_key: str) -> bool:
    """Compare in constant time: a SHA-512 of 41 random characters, so about two microseconds."""
    return ApiKey.objects.key_generator.verify(secret, hashed_key)


def _read_keys(key_ids: Sequence[str]) -> list[Key | None]:
    keys = load_keys(key_ids)
    return [keys.get(key_id) for key_id in key_ids]


def load_keys(key_ids: Sequence[str]) -> dict[str, Key]:
    """Read the keys with these public ids that are not revoked, with one query."""
    rows = (
        ApiKey.objects.filter(prefix__in=set(key_ids), revoked=False)
        .annotate(slugs=ArrayAgg("agents__slug", filter=Q(agents__isnull=False), default=[]))
        .values_list("prefix", "hashed_key", "expiry_date", "owner_id", "scopes", "all_agents", "slugs")
    )
    return {
        prefix: Key(
            hashed_key=hashed_key,
            expires_at=expires_at,
            caller=Caller(
                owner=f"owner:{owner_id}", key_id=prefix, scopes=frozenset(scopes), agents=frozenset(slugs), all_agents=all_agents
            ),
        )
        for prefix, hashed_key, expires_at, owner_id, scopes, all_agents, slugs in rows
    }


def _note_use(key_ids: Sequence[str]) -> dict[str, Key]:
    """Write that these keys were used, at most once a minute each, and read them again."""
    now = timezone.now()
    due = ApiKey.objects.filter(prefix__in=key_ids).exclude(last_used_at__gt=now - USE_WRITTEN_EVERY)
    # Rows that another process writes just now are left to it.
    ApiKey.objects.filter(pk__in=due.order_by("pk").select_for_update(skip_locked=True, of=("self",)).values("pk")).update(last_used_at=now)
    return load_keys(key_ids)


key_ring = KeyRing()
