"""Limits: what is counted against which rule, in Redis and without it, and what the headers say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django_redis import get_redis_connection

from observability.limits import admit, leave
from observability.local_limits import LocalCounters
from observability.models import Limit
from observability.rules import Rule, Visit, headers_of, rules_for
from tests.factories import unique

A_MOMENT_LATER = set(range(40, 61))
"""What is left of a minute; a moment is longer on a busy machine."""


def rule(measure="requests", quota=3, *, scope="agent"):
    return Rule(scope, measure, quota, f"chatbot:limit:test:{unique('counter')}")


def visit(*rules, lease_s=60.0):
    return Visit(id=unique("turn"), rules=rules, lease_s=lease_s)


def ask(*rules, **options):
    return admit([visit(*rules, **options)])[0]


def test_a_window_counts_down_and_then_refuses():
    requests = rule()
    verdicts = [ask(requests) for _ in range(5)]
    assert [verdict.standings[0].remaining for verdict in verdicts] == [2, 1, 0, 0, 0]
    assert [verdict.refused is not None for verdict in verdicts] == [False, False, False, True, True]
    assert {verdict.standings[0].reset_s for verdict in verdicts} <= A_MOMENT_LATER
    assert 0 < get_redis_connection("default").pttl(requests.counter) <= 60_000


def test_one_script_counts_all_rules_or_none():
    wide, narrow, places = rule(quota=10), rule(quota=1), rule("concurrent", 5)
    assert ask(wide, narrow, places).refused is None
    refused = ask(wide, narrow, places)
    assert refused.refused is not None
    assert refused.refused.rule == narrow
    assert [standing.remaining for standing in refused.standings] == [9, 0, 4]


def test_a_batch_is_counted_in_its_order():
    requests = rule(quota=3)
    verdicts = admit([visit(requests) for _ in range(3)] + [visit()] + [visit(requests)])
    assert [verdict.refused is None for verdict in verdicts] == [True, True, True, True, False]


def test_threads_at_once_never_exceed_a_quota():
    requests, places = rule(quota=20), rule("concurrent", 7)
    with ThreadPoolExecutor(8) as threads:
        assert sum(verdict.refused is None for verdict in threads.map(lambda _: ask(requests), range(60))) == 20
        assert sum(verdict.refused is None for verdict in threads.map(lambda _: ask(places), range(60))) == 7


def test_places_come_back_when_a_turn_leaves_or_its_lease_ends():
    places = rule("concurrent", 1)
    staying = visit(places)
    assert admit([staying])[0].refused is None
    assert admit([staying])[0].refused is None  # asked again after a lost transaction: the same place
    assert ask(places).refused is not None
    leave([(staying, 0)])
    assert ask(places, lease_s=0.0).refused is None  # dies at once
    assert ask(places).refused is None


def test_tokens_count_when_they_are_used():
    tokens = rule("tokens", 100)
    first = visit(tokens)
    assert admit([first])[0].standings[0].remaining == 100
    leave([(first, 70)])
    second = visit(tokens)
    assert admit([second])[0].standings[0].remaining == 30
    leave([(second, 70)])
    assert ask(tokens).refused is not None


def test_a_quota_of_zero_refuses_everybody():
    assert ask(rule(quota=0)).refused is not None


@pytest.fixture
def clock():
    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


def test_without_redis_each_process_has_its_share(clock, settings):
    settings.WEB_CONCURRENCY = 2
    counters, requests = LocalCounters(clock), rule(quota=7)
    verdicts = [counters.admit(visit(requests)) for _ in range(4)]
    assert [verdict.standings[0].remaining for verdict in verdicts] == [2, 1, 0, 0]
    assert {verdict.standings[0].quota for verdict in verdicts} == {3}
    assert verdicts[-1].refused is not None
    clock.now += 59.5
    assert counters.admit(visit(requests)).standings[0].reset_s == 1
    clock.now += 1
    assert counters.admit(visit(requests)).refused is None


def test_without_redis_places_and_tokens_count_too(clock, settings):
    settings.WEB_CONCURRENCY = 1
    counters, places, tokens = LocalCounters(clock), rule("concurrent", 1), rule("tokens", 10)
    first = visit(places, tokens, lease_s=5)
    assert counters.admit(first).refused is None
    assert counters.admit(visit(places)).refused is not None
    counters.leave(first, 10)
    assert counters.admit(visit(places, lease_s=5)).refused is None
    assert counters.admit(visit(tokens)).refused is not None
    clock.now += 6
    assert counters.admit(visit(places)).refused is None


def test_without_redis_memory_is_bounded(clock, settings, monkeypatch):
    monkeypatch.setattr("observability.local_limits._MOST_WINDOWS", 100)
    counters = LocalCounters(clock)
    for _ in range(500):
        assert counters.admit(visit(rule())).refused is None
    assert len(counters._windows) == 100


def test_the_headers_say_how_a_caller_stands():
    requests, tokens, places = rule(quota=1), rule("tokens", 100, scope="key"), rule("concurrent", 9)
    told = headers_of(ask(requests, tokens, places))
    assert told["RateLimit"] in {f'"agent-requests";r=0;t={t}, "key-tokens";r=100;t=60' for t in A_MOMENT_LATER}
    assert told["RateLimit-Policy"] == '"agent-requests";q=1;w=60, "key-tokens";q=100;w=60'
    assert "Retry-After" not in told
    assert int(headers_of(ask(requests))["Retry-After"]) in A_MOMENT_LATER
    assert headers_of(ask()) == {}


def counters(known, **asked):
    return [(each.scope, each.quota, each.counter.rpartition(":requests:")[2]) for each in rules_for(known, **asked)]


def test_which_rules_apply():
    known = {
        ("address", ""): Limit(scope="address", requests_per_minute=30),
        ("key", ""): Limit(scope="key", requests_per_minute=60),
        ("key", "k2"): Limit(scope="key", name="k2", requests_per_minute=600),
        ("key", "k3"): Limit(scope="key", name="k3"),
        ("agent", "helper"): Limit(scope="agent", name="helper", requests_per_minute=1000),
    }
    assert counters(known, address="192.0.2.1", agent="other") == [("address", 30, "192.0.2.1")]
    assert counters(known, address="192.0.2.1", key="k1") == [("key", 60, "k1")]  # a key vouches for its address
    assert counters(known, key="k2", agent="helper") == [("key", 600, "k2"), ("agent", 1000, "helper")]
    assert counters(known, key="k3") == []  # its own limit, which is none, goes before the general one
    assert counters(known, address="", session="", key="", agent="") == []


def test_an_ipv6_caller_is_its_network():
    known = {("address", ""): Limit(scope="address", requests_per_minute=30)}
    one, neighbour, other = (counters(known, address=address) for address in ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1"))
    assert one == neighbour != other
    assert counters(known, address="unknown") == [("address", 30, "unknown")]
