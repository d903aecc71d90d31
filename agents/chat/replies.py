"""The reply cache: an answer given a moment ago, for a prompt that is the same in every respect.

A key is a digest of everything that can change the answer: the version, the models and their settings, the whole prompt as it
will be sent, and whose it is. A turn that may draw on memories is never looked up. Of identical prompts at the same time one
calls the model, and the others wait for its answer (`agents.chat.flights`).

Values are JSON, longer ones compressed. What is not exactly what was kept here (poisoned, foreign, cut off) is a miss.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec
import structlog

from agents.access import Caller
from agents.versions.live import Answering
from memory.api import OpenedTurn, SubjectErased
from observability.api import PREFIX, RedisDown, Script, redis_call

log = structlog.get_logger(__name__)

FLIGHT_LEASE_MS: Final = 3000
"""How long nobody else calls the model, after its caller was last heard of."""
_COMPRESS_FROM_BYTES: Final = 1024
_MOST_BYTES: Final = 32_000_000
_AT_ONCE: Final = 1000
_encode: Final = msgspec.json.Encoder().encode

# KEYS: the reply, its flight. ARGV: the turn's id, its lease (ms). Returns the reply, or whether this turn is to call the model.
# The same turn may ask again.
_LOOK: Final = Script("""
local reply = redis.pcall('GET', KEYS[1])
if type(reply) == 'string' then return reply end
redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
return redis.call('GET', KEYS[2]) == ARGV[1] and 1 or 0
""")
# KEYS: the reply, its flight, where the turn's reply is noted. ARGV: the turn's id, the reply, its lifetime (s).
_KEEP: Final = Script("""
redis.call('SET', KEYS[3], KEYS[1], 'EX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
""")


class CachedReply(msgspec.Struct, frozen=True, kw_only=True):
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


_decode: Final = msgspec.json.Decoder(CachedReply, strict=True).decode


class ToKeep(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, under which key it is to be kept and for how many seconds, and the turn that got it."""

    key: str
    turn_id: str
    reply: CachedReply
    seconds: int


class Looked(msgspec.Struct, frozen=True):
    """What a look into the cache found: an answer, or whether this turn is the one to call the model."""

    reply: CachedReply | None = None
    leads: bool = True


MISSED: Final = Looked()


def may_be_cached(answering: Answering, *, is_draft: bool) -> bool:
    """Tell whether answers of this version may be kept: never those of a draft, nor of an agent that remembers."""
    return answering.reply_cache_s > 0 and not is_draft and not answering.memory_enabled


def key_of(answering: Answering, *, caller: Caller, user: str, message: str, opened: OpenedTurn) -> str:
    """Return the digest of everything that can change the answer to `message`.

    Callers without a key share answers; those with one share them with their owner's other keys, for the same user.
    """
    return _digest(answering, caller, user, opened, message)


def scope_of(answering: Answering, *, caller: Caller, user: str, opened: OpenedTurn, is_judged: bool, embedded_by: str) -> str:
    """Return the digest of everything in a key but the message: of whatever two questions must have in common to be compared.

    `is_judged`: a classifier may send the message to the cheaper model. What an editor keeps from that gets no answer of it.
    """
    return _digest(answering, caller, user, opened, ["questions", embedded_by, is_judged])  # a list: no message has the same key


def _digest(answering: Answering, caller: Caller, user: str, opened: OpenedTurn, asked: str | list[str | bool]) -> str:
    found = _encode(
        [
            caller.owner if caller.key_id else "",
            user,
            answering.slug,
            answering.number,
            [(choice.provider.slug, choice.provider.base_url, choice.model) for choice in answering.choices],
            [answering.temperature, answering.top_p, answering.max_output_tokens, answering.prompt_budget_tokens],
            answering.system_prompt,
            opened.summary,
            [(turn.message, turn.reply) for turn in opened.recent],
            asked,
        ]
    )
    return hashlib.sha256(found).hexdigest()


def look(keys: Sequence[str | None], *, turns: Sequence[str], fresh: Sequence[bool]) -> list[Looked]:
    """Look up the `keys` of `turns` in one round trip; where an answer is absent, try to take the lead. Blocks.

    Asked again for the same turns, it says the same. None among the keys: not to be cached. Nor is looked up what is to be
    `fresh`: that caller wants no kept answer.
    """
    found = [MISSED for _ in keys]
    wanted = [(place, key) for place, key in enumerate(keys) if key is not None and not fresh[place]]
    if not wanted:
        return found
    calls = [([reply_name(key), flight_name(key)], [turns[place], FLIGHT_LEASE_MS]) for place, key in wanted]
    try:
        answers = redis_call(lambda client: _LOOK.run(client, calls))
    except RedisDown:
        return found
    for (place, _), answer in zip(wanted, answers, strict=True):
        # What is kept there may be poisoned: then this turn calls the model, and its answer replaces it.
        found[place] = Looked(leads=bool(answer)) if isinstance(answer, int) else Looked(read_reply(answer))
    return found


def keep(kept: Sequence[ToKeep]) -> None:
    """Keep answers and end their flights, in one round trip. Blocks; what Redis does not take is not kept."""
    calls = [
        ([reply_name(it.key), flight_name(it.key), _note_name(it.turn_id)], [it.turn_id, write_reply(it.reply), it.seconds]) for it in kept
    ]
    try:
        redis_call(lambda client: _KEEP.run(client, calls))
    except RedisDown:
        log.debug("answers not kept", count=len(kept))


async def forget_replies(erased: SubjectErased) -> int:
    """Delete the answers that an erased person's turns got and that are kept for others; return how many those were.

    Raises:
        RedisDown: they may be there still.
    """
    notes = [_note_name(str(id)) for id in erased.turn_ids]
    return sum([await asyncio.to_thread(_forget, notes[start : start + _AT_ONCE]) for start in range(0, len(notes), _AT_ONCE)])


def _forget(notes: Sequence[str]) -> int:
    names = [name for name in redis_call(lambda client: client.mget(notes)) if name]
    forgotten: int = redis_call(lambda client: client.delete(*names)) if names else 0
    redis_call(lambda client: client.delete(*notes))
    return forgotten


def reply_name(key: str) -> str:
    """Return where Redis has the answer."""
    return f"{PREFIX}reply:{key}"


def flight_name(key: str) -> str:
    """Return where Redis has the turn that is getting the answer."""
    return f"{PREFIX}flight:{key}"


def _note_name(turn_id: str) -> str:
    """Return where Redis has which answer a turn got."""
    return f"{PREFIX}reply-of:{turn_id}"


def write_reply(reply: CachedReply) -> bytes:
    """Return `reply` as it is kept."""
    text = _encode(reply)
    return text if len(text) < _COMPRESS_FROM_BYTES else zlib.compress(text, level=1)


def read_reply(value: bytes | None) -> CachedReply | None:
    """Return the answer in `value`; None where it is not one of ours: a poisoned or foreign value is a miss."""
    if not value:
        return None
    try:
        reply = _decode(value if value.startswith(b"{") else _decompress(value))
        return reply if reply.reply and reply.cost.is_finite() and reply.cost >= 0 else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidOperation, zlib.error):
        return None


def _decompress(value: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(value, _MOST_BYTES)
    return text if decompressor.eof else b""
