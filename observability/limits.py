"""Rate limits: requests and tokens a minute, and answers at once, for each address, session, key and agent.

What is counted lives in Redis, so that it is shared by all processes and lost without harm. One script checks every limit that
applies to a turn and counts it against all of them, or against none. Where Redis does not answer, each process counts for
itself, with its share of each limit: a caller may get a little more or less than is due, and nobody is locked out.

A window begins with its first request and ends a minute later, so "remaining" and "reset" are exact.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog
from django.conf import settings

from observability.models import Limit, LimitScope
from observability.polled import Polled
from observability.redis import RedisDown, redis_call

log = structlog.get_logger(__name__)

WINDOW_S: Final = 60
_PREFIX: Final = "limit:"
_MOST_LOCAL: Final = 50_000

Measure = Literal["requests", "tokens", "concurrent"]

# KEYS: a counter for each rule. ARGV[1]: now (ms); ARGV[2]: the turn's id; ARGV[3]: its lease (ms); ARGV[4]: window (ms); then for
# each rule its kind (r, t or c) and its quota. Tokens are counted when they are used, so theirs is only looked at.
# Returns {index of the rule that refuses or 0, then for each rule: used, ms until it is free}.
_ADMIT: Final = """
local now, turn, lease, window = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local refused, found = 0, {}
for i, key in ipairs(KEYS) do
    local kind, quota = ARGV[3 + 2 * i], tonumber(ARGV[4 + 2 * i])
    local used, left
    if kind == 'c' then
        redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
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
        local kind = ARGV[3 + 2 * i]
        if kind == 'c' then
            redis.call('ZADD', key, now + lease, turn)
            redis.call('PEXPIRE', key, lease + 1000)
            found[2 * i - 1] = found[2 * i - 1] + 1
        elseif kind == 'r' then
            redis.call('INCR', key)
            if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, window) end
            found[2 * i - 1] = found[2 * i - 1] + 1
        end
    end
end
return {refused, unpack(found)}
"""
_USE: Final = """
local turn, tokens, window = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for i, key in ipairs(KEYS) do
    if ARGV[3 + i] == 'c' then
        redis.call('ZREM', key, turn)
    elseif ARGV[3 + i] == 't' and tokens > 0 then
        redis.call('INCRBY', key, tokens)
        if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, window) end
    end
end
return 1
"""
_KINDS: Final[Mapping[Measure, str]] = {"requests": "r", "tokens": "t", "concurrent": "c"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit that applies to a turn: `quota` of `measure` for `scope`, counted under `counter`."""

    scope: str
    measure: Measure
    quota: int
    counter: str

    @property
    def policy(self) -> str:
        """Its name in the RateLimit headers, such as `address-requests`."""
        return f"{self.scope}-{self.measure}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a caller stands with one rule: what remains of it, and in how many seconds all of it is there again."""

    rule: Rule
    remaining: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a turn may go on, how its caller stands, and the rule that refuses."""

    standings: tuple[Standing, ...] = ()
    refused: Standing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A turn that asks to be admitted. `lease_s`: after this long it no longer counts as one of the answers at once."""

    id: str
    rules: Sequence[Rule]
    lease_s: float


def read_limits() -> dict[tuple[str, str], Limit]:
    """Read every limit by scope and name; name "" is everybody's of that scope. What nobody has set is as the settings say."""
    default = Limit(scope=LimitScope.ADDRESS, requests_per_minute=settings.ANONYMOUS_REQUESTS_PER_MINUTE or None)
    return {(LimitScope.ADDRESS, ""): default} | {(limit.scope, limit.name): limit for limit in Limit.objects.all()}


limits: Final[Polled[dict[tuple[str, str], Limit]]] = Polled(read_limits, fresh_for_s=2.0)


def rules_for(
    known: Mapping[tuple[str, str], Limit], *, address: str = "", session: str = "", key: str = "", agent: str = ""
) -> tuple[Rule, ...]:
    """Return the rules for a turn of this address, session, key and agent; "" where there is none.

    An address is limited only where no key vouches for it.
    """
    counted = (
        (LimitScope.ADDRESS, "" if key else address),
        (LimitScope.SESSION, session),
        (LimitScope.KEY, key),
        (LimitScope.AGENT, agent),
    )
    return tuple(
        rule
        for scope, name in counted
        if name and (limit := known.get((scope, name)) or known.get((scope, "")))
        for rule in _rules_of(limit, scope, name)
    )


def _rules_of(limit: Limit, scope: str, name: str) -> Iterable[Rule]:
    quotas: tuple[tuple[Measure, int | None], ...] = (
        ("requests", limit.requests_per_minute),
        ("tokens", limit.tokens_per_minute),
        ("concurrent", limit.concurrent),
    )
    for measure, quota in quotas:
        if quota is not None:
            yield Rule(scope, measure, quota, f"{_PREFIX}{scope}:{measure}:{name}")


def admit(visits: Sequence[Visit]) -> list[Verdict]:
    """Count `visits` against their rules and tell of each whether it may go on. Blocks for at most one round trip."""
    if not any(visit.rules for visit in visits):
        return [Verdict() for _ in visits]
    try:
        answers = redis_call(lambda client: _ask(client, visits))
    except RedisDown:
        return [_local.admit(visit) for visit in visits]
    return [_verdict(visit, answer) for visit, answer in zip(visits, answers, strict=True)]


def _ask(client: Any, visits: Sequence[Visit]) -> list[list[int]]:
    script = client.register_script(_ADMIT)
    pipe = client.pipeline(transaction=False)
    now_ms = round(time.time() * 1000)
    for visit in visits:
        arguments: list[Any] = [now_ms, visit.id, round(visit.lease_s * 1000), WINDOW_S * 1000]
        for rule in visit.rules:
            arguments += [_KINDS[rule.measure], rule.quota]
        script(keys=[rule.counter for rule in visit.rules], args=arguments, client=pipe)
    return list(pipe.execute())


def _verdict(visit: Visit, answer: Sequence[int]) -> Verdict:
    refused_at, *found = answer
    standings = tuple(
        Standing(rule=rule, remaining=max(0, rule.quota - int(used)), reset_s=max(1, -(-int(left_ms) // 1000)))
        for rule, used, left_ms in zip(visit.rules, found[0::2], found[1::2], strict=True)
    )
    return Verdict(standings, standings[refused_at - 1] if refused_at else None)


def leave(visits: Sequence[tuple[Visit, int]]) -> None:
    """Give back the places of `visits` that have ended, and count the tokens that each has used."""
    ended = [(visit, tokens) for visit, tokens in visits if any(rule.measure != "requests" for rule in visit.rules)]
    if not ended:
        return
    is_down = False
    try:
        redis_call(lambda client: _tell(client, ended))
    except RedisDown:
        is_down = True  # places in Redis end with their lease
    for visit, tokens in ended:
        _local.leave(visit, tokens if is_down else 0)


def _tell(client: Any, ended: Sequence[tuple[Visit, int]]) -> None:
    script = client.register_script(_USE)
    pipe = client.pipeline(transaction=False)
    for visit, tokens in ended:
        kinds = [_KINDS[rule.measure] for rule in visit.rules]
        script(keys=[rule.counter for rule in visit.rules], args=[visit.id, tokens, WINDOW_S * 1000, *kinds], client=pipe)
    pipe.execute()


class _LocalCounters:
    """The same rules without Redis, for one process and its share of each quota."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}
        self._places: dict[str, dict[str, float]] = {}

    def admit(self, visit: Visit) -> Verdict:
        now = time.monotonic()
        standings = tuple(self._standing(rule, now) for rule in visit.rules)
        refused = next((standing for standing in standings if standing.remaining == 0), None)
        if refused:
            return Verdict(standings, refused)
        for rule in visit.rules:
            if rule.measure == "concurrent":
                self._places.setdefault(rule.counter, {})[visit.id] = now + visit.lease_s
            elif rule.measure == "requests":
                self._count(rule.counter, 1, now)
        return Verdict(tuple(self._standing(rule, now) for rule in visit.rules))

    def leave(self, visit: Visit, tokens: int) -> None:
        now = time.monotonic()
        for rule in visit.rules:
            if rule.measure == "concurrent":
                places = self._places.get(rule.counter, {})
                places.pop(visit.id, None)
                if not places:
                    self._places.pop(rule.counter, None)
            elif rule.measure == "tokens" and tokens:
                self._count(rule.counter, tokens, now)

    def _standing(self, rule: Rule, now: float) -> Standing:
        quota = max(1, rule.quota // settings.WEB_CONCURRENCY) if rule.quota else 0
        if rule.measure == "concurrent":
            places = self._places.get(rule.counter, {})
            used, ends_at = sum(1 for until in places.values() if until > now), now + 1
        else:
            ends_at, used = self._windows.get(rule.counter, (0.0, 0))
            if ends_at <= now:
                ends_at, used = now + WINDOW_S, 0
        return Standing(rule=rule, remaining=max(0, quota - used), reset_s=max(1, round(ends_at - now)))

    def _count(self, counter: str, amount: int, now: float) -> None:
        ends_at, used = self._windows.get(counter, (0.0, 0))
        if ends_at <= now:
            if len(self._windows) >= _MOST_LOCAL:
                self._windows = {name: window for name, window in self._windows.items() if window[0] > now}
            ends_at, used = now + WINDOW_S, 0
        self._windows[counter] = (ends_at, used + amount)


_local: Final = _LocalCounters()


def headers_of(verdict: Verdict) -> dict[str, str]:
    """Return the RateLimit headers (draft-ietf-httpapi-ratelimit-headers) that tell how a caller stands."""
    windows = [standing for standing in verdict.standings if standing.rule.measure != "concurrent"]
    if not windows:
        return {}
    found = {
        "RateLimit": ", ".join(f"{json.dumps(it.rule.policy)};r={it.remaining};t={it.reset_s}" for it in windows),
        "RateLimit-Policy": ", ".join(f"{json.dumps(it.rule.policy)};q={it.rule.quota};w={WINDOW_S}" for it in windows),
    }
    if verdict.refused:
        found["Retry-After"] = str(verdict.refused.reset_s)
    return found
