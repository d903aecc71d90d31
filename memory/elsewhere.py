"""Stores other than the database that hold something of a person, such as caches: they are told when one is erased.

A store registers a coroutine function. What it fails to forget is tried again for a while, and the receipt says `pending`
until it has confirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

import structlog

log = structlog.get_logger(__name__)

PENDING: Final = "pending"
"""What a receipt says of a store that has not confirmed yet."""
DEADLINE_S: Final = 10.0
"""How long a store may take each time."""
_PAUSES_S: Final = (0.2, 1.0)
_LATER_PAUSES_S: Final = (5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)

Outcome = int | Literal["pending"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectErased:
    """What was erased from the database. It is handed to the stores, and kept nowhere.

    Attributes:
        owner, name: who they were, as in `Subject`; "" where memories were forgotten, and the person stays.
        owner_ids: whose memories are gone: ids of `memory_owner`.
        sessions: agents and session ids of their conversations.
        turn_ids: their turns' ids, the API's message ids.
        names: what the person and the agents called each other.
        texts: what they said and were told, and what was remembered of it, word by word.
    """

    owner: str = ""
    name: str = ""
    owner_ids: tuple[int, ...] = ()
    sessions: tuple[tuple[str, str], ...] = ()
    turn_ids: tuple[UUID, ...] = ()
    names: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


Eraser = Callable[[SubjectErased], Awaitable[int]]
"""Forgets what a store holds of the erased, and returns how many entries that were. Safe to run again."""

_erasers: dict[str, Eraser] = {}
_retries: set[asyncio.Task[None]] = set()


def register_eraser(name: str, eraser: Eraser) -> None:
    """Let the store `name`, which becomes a line of every receipt, take part in erasures from now on."""
    _erasers[name] = eraser


def unregister_eraser(name: str) -> None:
    """Leave the store `name` out from now on."""
    _erasers.pop(name, None)


def stores() -> tuple[str, ...]:
    """Return the names of the stores that take part."""
    return tuple(sorted(_erasers))


async def tell_stores(erased: SubjectErased) -> Mapping[str, Outcome]:
    """Let every store forget, each tried three times; return by name how many entries went, or `pending`."""
    names = stores()
    outcomes = await asyncio.gather(*(_forget(name, erased, pauses_s=_PAUSES_S) for name in names))
    return dict(zip(names, outcomes, strict=True))


def keep_telling(erased: SubjectErased, *, name: str, confirm: Callable[[int], Awaitable[None]]) -> None:
    """Go on trying in the background, for about two hours, and call `confirm` with the number of entries that went."""

    async def retry() -> None:
        await asyncio.sleep(_LATER_PAUSES_S[0])
        outcome = await _forget(name, erased, pauses_s=_LATER_PAUSES_S[1:])
        if outcome == PENDING:
            log.error("a store did not forget an erased person", store=name, remedy="Empty the store by hand.")
        else:
            await confirm(outcome)

    task = asyncio.create_task(retry())
    _retries.add(task)
    task.add_done_callback(_retries.discard)


async def _forget(name: str, erased: SubjectErased, *, pauses_s: tuple[float, ...]) -> Outcome:
    for pause_s in (*pauses_s, None):
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await _erasers[name](erased)
        except Exception as error:
            # Of what kind it was, and no more: an error's text may hold what was to be forgotten.
            log.warning("a store has not forgotten an erased person yet", store=name, reason=type(error).__name__)
        if pause_s is not None:
            await asyncio.sleep(pause_s)
    return PENDING
