"""Which limits apply to a turn, and how its caller stands with them.

A turn makes a dozen of these values: msgspec's are made and copied many times faster than dataclasses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal

import msgspec
from django.conf import settings

from observability.models import Limit, LimitScope
from observability.polled import Polled
from observability.redis import PREFIX

WINDOW_S: Final = 60
# Whoever has one IPv6 address has all of these.
_IPV6_NETWORK: Final = 64

Measure = Literal["requests", "tokens", "concurrent"]


class Rule(msgspec.Struct, frozen=True):
    """One limit that applies to a turn: `quota` of `measure` for `scope`, counted under `counter`."""

    scope: str
    measure: Measure
    quota: int
    counter: str

    @property
    def policy(self) -> str:
        """Its name in the RateLimit headers, such as `address-requests`."""
        return f"{self.scope}-{self.measure}"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a caller stands with one rule.

    Attributes:
        quota: what may be used in a window, where this is counted: a share of the rule's where each process counts for itself.
        remaining: what is left of it.
        reset_s: in how many seconds all of it is there again.
    """

    rule: Rule
    quota: int
    remaining: int
    reset_s: int


class Verdict(msgspec.Struct, frozen=True):
    """Whether a turn may go on, how its caller stands, and the rule that refuses."""

    standings: tuple[Standing, ...] = ()
    refused: Standing | None = None


class Visit(msgspec.Struct, frozen=True, kw_only=True):
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
        (LimitScope.ADDRESS.value, "" if key else client_of(address)),
        (LimitScope.SESSION.value, session),
        (LimitScope.KEY.value, key),
        (LimitScope.AGENT.value, agent),
    )
    return tuple(
        rule
        for scope, name in counted
        if name and (limit := known.get((scope, name)) or known.get((scope, "")))
        for rule in _rules_of(scope, name, limit.requests_per_minute, limit.tokens_per_minute, limit.concurrent)
    )


@lru_cache(maxsize=4096)
def client_of(address: str) -> str:
    """Return whom limits count at `address`: an IPv4 address, or the network that an IPv6 address is one of."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip.packed, _IPV6_NETWORK), strict=False))


@lru_cache(maxsize=8192)
def _rules_of(scope: str, name: str, requests: int | None, tokens: int | None, concurrent: int | None) -> tuple[Rule, ...]:
    quotas: tuple[tuple[Measure, int | None], ...] = (("requests", requests), ("tokens", tokens), ("concurrent", concurrent))
    return tuple(Rule(scope, measure, quota, f"{PREFIX}limit:{scope}:{measure}:{name}") for measure, quota in quotas if quota is not None)


def headers_of(verdict: Verdict) -> dict[str, str]:
    """Return the RateLimit headers (draft-ietf-httpapi-ratelimit-headers) that tell how a caller stands."""
    standings, policies, found = [], [], {}
    for it in verdict.standings:
        if it.rule.measure != "concurrent":
            name = it.rule.policy
            standings.append(f'"{name}";r={it.remaining};t={it.reset_s}')
            policies.append(f'"{name}";q={it.quota};w={WINDOW_S}')
    if standings:
        found["RateLimit"] = ", ".join(standings)
        found["RateLimit-Policy"] = ", ".join(policies)
    if verdict.refused:
        found["Retry-After"] = str(verdict.refused.reset_s)
    return found
