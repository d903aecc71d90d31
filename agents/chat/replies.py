"""The reply cache: an answer given a moment ago, for a prompt that is the same in every respect.

A key is a digest of everything that can change the answer: the version, the models and their settings, the whole prompt as it
will be sent, and whose it is. A turn that may draw on memories is never looked up. Of identical prompts at the same time one
calls the model and the others wait for its answer, in one process by a future, across processes by a lease in Redis.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec
import structlog
from django.core.cache import caches

from agents.access import Caller
from agents.versions.live import Answering
from memory.api import OpenedTurn
from observability.api import RedisDown, Visit, redis_call

log = structlog.get_logger(__name__)

_PREFIX: Final = "reply:"
_FLIGHTS: Final = "flight:"
_LOOK_AGAIN_S: Final = 0.05
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedReply:
    """An answer as it is kept: whole ones alone."""

    reply: str
    provider: str
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: str | None = None

    @property
    def cost(self) -> Decimal:
        """What the answer cost, and a use of it saves; 0 where that is unknown."""
        return Decimal(self.cost_usd or 0)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look into the cache found: an answer, or whether this turn is the one to call the model."""

    reply: CachedReply | None = None
    leads: bool = True


MISSED: Final = Looked()


def may_be_cached(answering: Answering, *, is_draft: bool) -> bool:
    """Tell whether answers of this version may be kept: never those of a draft, nor of an agent that remembers."""
    return answering.reply_cache_s > 0 and not is_draft and not answering.memory_enabled


def key_of(answering: Answering, *, caller: Caller, user: str | None, message: str, opened: OpenedTurn) -> str:
    """Return the digest of everything that can change the answer to `message`."""
    scope = caller.owner if caller.key_id else ""
    found = _encode(
        [
            scope,
            user or "",
            answering.slug,
            answering.number,
            [(choice.provider.slug, choice.provider.base_url, choice.model) for choice in answering.choices],
            [answering.temperature, answering.top_p, answering.max_output_tokens, answering.prompt_budget_tokens],
            answering.system_prompt,
            opened.summary,
            [(turn.message, turn.reply) for turn in opened.recent],
            message,
        ]
    )
    return hashlib.sha256(found).hexdigest()


def look(keys: Sequence[str | None], *, turns: Sequence[Visit], fresh: Sequence[bool]) -> list[Looked]:
    """Look up the `keys` (None: not to be cached) of `turns` at once; where one is absent, try to take the lead. Blocks.

    Asked again for the same turns, it says the same.

    `fresh`: the caller wants no kept answer, and its own kept instead.
    """
    wanted = [place for place, key in enumerate(keys) if key is not None]
    found = [MISSED for _ in keys]
    if not wanted:
        return found
    try:
        kept = caches["default"].get_many([_PREFIX + str(keys[place]) for place in wanted if not fresh[place]])
        absent = [place for place in wanted if not fresh[place] and _PREFIX + str(keys[place]) not in kept]
        leads = redis_call(lambda client: _take_leads(client, [(str(keys[place]), turns[place]) for place in absent])) if absent else []
    except RedisDown:
        return found
    for place, lead in zip(absent, leads, strict=True):
        found[place] = Looked(leads=lead)
    for place in wanted:
        if reply := _read(kept.get(_PREFIX + str(keys[place]))):
            found[place] = Looked(reply)
    return found


def _take_leads(client: Any, wanted: Sequence[tuple[str, Visit]]) -> list[bool]:
    pipe = client.pipeline(transaction=False)
    for key, turn in wanted:
        pipe.set(_FLIGHTS + key, turn.id, nx=True, px=round(turn.lease_s * 1000))
        pipe.get(_FLIGHTS + key)
    return [leader == turn.id.encode() for (_, turn), leader in zip(wanted, pipe.execute()[1::2], strict=True)]


def keep(replies: Mapping[str, tuple[CachedReply, int]]) -> None:
    """Keep `replies` by key, each for so many seconds, and end their flights. Blocks; what Redis does not take is not kept."""
    cache = caches["default"]
    for key, (reply, seconds) in replies.items():
        cache.set(_PREFIX + key, asdict(reply), seconds)
    end_flights(list(replies))


def end_flights(keys: Sequence[str]) -> None:
    """Let others call the model: this process has answered, or could not."""
    try:
        redis_call(lambda client: client.delete(*(_FLIGHTS + key for key in keys)))
    except RedisDown:
        log.debug("flights not ended; their leases end them")


def _read(value: Any) -> CachedReply | None:
    """Return the answer in `value`; None where it is not one of ours: a poisoned or foreign value is a miss."""
    try:
        reply = msgspec.convert(value, CachedReply) if isinstance(value, dict) else None
        return reply if reply is not None and reply.cost >= 0 else None
    except (msgspec.ValidationError, InvalidOperation):
        return None


class Flights:
    """Who in this process is getting an answer that others wait for."""

    def __init__(self) -> None:
        self._led: dict[str, asyncio.Future[CachedReply | None]] = {}

    def lead(self, key: str) -> bool:
        """Take the lead for `key`; False: somebody in this process has it."""
        if key in self._led:
            return False
        self._led[key] = asyncio.get_running_loop().create_future()
        return True

    def land(self, key: str, reply: CachedReply | None) -> None:
        """Tell those who wait: the answer, or None where there is none."""
        if waited_for := self._led.pop(key, None):
            waited_for.set_result(reply)

    async def wait(self, key: str, *, seconds: float) -> CachedReply | None:
        """Return the leader's answer; None where it could not answer, or not in time: then call the model yourself.

        Where the leader is another process, one of those who wait here asks Redis for all of them.
        """
        waited_for = self._led.get(key)
        if waited_for is not None:
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.shield(waited_for)
            except TimeoutError:
                return None
        self.lead(key)
        reply = None
        try:
            reply = await _watch(key, seconds=seconds)
        finally:
            self.land(key, reply)
        return reply


flights: Final = Flights()


async def _watch(key: str, *, seconds: float) -> CachedReply | None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        await asyncio.sleep(_LOOK_AGAIN_S)
        reply, is_flying = await asyncio.to_thread(_look_for, key)
        if reply is not None or not is_flying:
            return reply
    return None


def _look_for(key: str) -> tuple[CachedReply | None, bool]:
    try:
        is_flying = redis_call(lambda client: bool(client.exists(_FLIGHTS + key)))  # first: the answer is kept before it ends
    except RedisDown:
        return None, False
    return _read(caches["default"].get(_PREFIX + key)), is_flying
