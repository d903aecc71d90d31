"""Rate limits: requests and tokens a minute, and answers at once, for each address, session, key and agent.

What is counted lives in Redis, so that it is shared by all processes and lost without harm. One script checks every limit that
applies to a turn and counts it against all of them, or against none. Where Redis does not answer, each process counts for
itself, with its share of each limit: a caller may get a little more or less than is due, and nobody is locked out.

A window begins with its first request and ends a minute later, so "remaining" and "reset" are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from observability.local_limits import LocalCounters
from observability.redis import RedisDown, Script, redis_call
from observability.rules import WINDOW_S, Measure, Standing, Verdict, Visit

# KEYS: a counter for each rule. ARGV[1]: the turn's id; ARGV[2]: its lease (ms); ARGV[3]: the window (ms); then for each rule its
# kind (r, t or c) and its quota. Tokens are counted when they are used, so theirs is only looked at.
# Returns {index of the rule that refuses or 0, then for each rule: used, ms until it is free}.
_ADMIT: Final = Script("""
local turn, lease, window = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local refused, found = 0, {}
for i, key in ipairs(KEYS) do
    local kind, quota = ARGV[2 + 2 * i], tonumber(ARGV[3 + 2 * i])
    local used, left
    if kind == 'c' then
        redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
        redis.call('ZREM', key, turn)
        used = redis.call('ZCARD', key)
        left = 1000
    else
        used = tonumber(redis.call('GET', key) or '0')
        left = redis.call('PTTL', key)
        if left < 0 then left = window end
    end
    found[2 * i - 1], found[2 * i] = used, left
    if refused == 0 and used >= quota then refused = i end
end
if refused == 0 then
    for i, key in ipairs(KEYS) do
        local kind = ARGV[2 + 2 * i]
        if kind == 'c' then
            redis.call('ZADD', key, now + lease, turn)
            if redis.call('PTTL', key) < lease then redis.call('PEXPIRE', key, lease + 1000) end
            found[2 * i - 1] = found[2 * i - 1] + 1
        elseif kind == 'r' then
            redis.call('INCR', key)
            if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, window) end
            found[2 * i - 1] = found[2 * i - 1] + 1
        end
    end
end
return {refused, unpack(found)}
""")
_LEAVE: Final = Script("""
local turn, tokens, window = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for i, key in ipairs(KEYS) do
    if ARGV[3 + i] == 'c' then
        redis.call('ZREM', key, turn)
    else
        redis.call('INCRBY', key, tokens)
        if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, window) end
    end
end
return 1
""")
_KINDS: Final[Mapping[Measure, str]] = {"requests": "r", "tokens": "t", "concurrent": "c"}
_local: Final = LocalCounters()


def admit(visits: Sequence[Visit]) -> list[Verdict]:
    """Count `visits` against their rules and tell of each whether it may go on. Blocks for at most one round trip."""
    asking = [visit for visit in visits if visit.rules]
    if not asking:
        return [Verdict() for _ in visits]
    try:
        answers = redis_call(lambda client: _ADMIT.run(client, [_question(visit) for visit in asking]))
    except RedisDown:
        return [_local.admit(visit) for visit in visits]
    verdicts = {visit.id: _verdict(visit, answer) for visit, answer in zip(asking, answers, strict=True)}
    return [verdicts.get(visit.id) or Verdict() for visit in visits]


def _question(visit: Visit) -> tuple[list[str], list[Any]]:
    arguments: list[Any] = [visit.id, round(visit.lease_s * 1000), WINDOW_S * 1000]
    for rule in visit.rules:
        arguments += [_KINDS[rule.measure], rule.quota]
    return [rule.counter for rule in visit.rules], arguments


def _verdict(visit: Visit, answer: Sequence[int]) -> Verdict:
    refused_at, *found = answer
    standings = tuple(
        Standing(rule=rule, quota=rule.quota, remaining=max(0, rule.quota - int(used)), reset_s=max(1, -(-int(left_ms) // 1000)))
        for rule, used, left_ms in zip(visit.rules, found[0::2], found[1::2], strict=True)
    )
    return Verdict(standings, standings[refused_at - 1] if refused_at else None)


def leave(visits: Sequence[tuple[Visit, int]]) -> None:
    """Give back the places of `visits` that have ended, and count the tokens that each has used."""
    notices = [notice for visit, tokens in visits if (notice := _notice(visit, tokens))]
    if not notices:
        return
    is_down = False
    try:
        redis_call(lambda client: _LEAVE.run(client, notices))
    except RedisDown:
        is_down = True  # places in Redis end with their lease
    for visit, tokens in visits:
        _local.leave(visit, tokens if is_down else 0)


def _notice(visit: Visit, tokens: int) -> tuple[list[str], list[Any]] | None:
    """Return what Redis is to be told; None: nothing changes, as places are not counted, and no tokens."""
    rules = [rule for rule in visit.rules if rule.measure == "concurrent" or (tokens and rule.measure == "tokens")]
    kinds = [_KINDS[rule.measure] for rule in rules]
    return ([rule.counter for rule in rules], [visit.id, tokens, WINDOW_S * 1000, *kinds]) if rules else None
