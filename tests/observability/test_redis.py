"""Redis that is away is asked once a second, by one caller, and told of in two lines."""

from __future__ import annotations

import pytest
import redis.exceptions
import structlog

from observability import redis as module
from observability.redis import RedisDown, Script, redis_call
from tests.factories import unique


@pytest.fixture(autouse=True)
def breaker(monkeypatch):
    fresh = module._Breaker()
    monkeypatch.setattr(module, "_breaker", fresh)
    return fresh


def gone(client):
    raise redis.exceptions.ConnectionError("gone")


@pytest.mark.parametrize("error", [redis.exceptions.TimeoutError("slow"), redis.exceptions.ReadOnlyError("replica"), OSError("no route")])
def test_whatever_redis_cannot_do_is_one_error(error):
    def fail(client):
        raise error

    with pytest.raises(RedisDown):
        redis_call(fail)


def test_an_outage_is_told_once_and_asked_about_once_a_second(breaker, monkeypatch):
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    asked = []
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(RedisDown):
                redis_call(gone)
        with pytest.raises(RedisDown):
            redis_call(asked.append)
        assert asked == []  # it rests
        now += 1.1
        breaker.check()  # one caller asks
        with pytest.raises(RedisDown):
            redis_call(asked.append)  # and nobody else meanwhile
        now += 1.1
        assert redis_call(lambda client: client.ping())
        assert redis_call(lambda client: client.ping())
    assert [line["event"] for line in lines] == ["redis does not answer", "redis answers again"]


def test_a_script_that_redis_forgot_is_loaded_again():
    script = Script("return ARGV[1] * 2")
    for _ in range(2):
        redis_call(lambda client: client.script_flush())
        assert redis_call(lambda client: script.run(client, [([], [1]), ([], [2])])) == [2, 4]


def test_a_script_runs_for_each_of_many_calls_and_one_that_fails_keeps_no_other_from_it(breaker):
    script = Script("for place, key in ipairs(KEYS) do redis.call('INCRBY', key, ARGV[place]) end return #KEYS * 100 + #ARGV")
    names = [f"chatbot:test:{unique('batch')}" for _ in range(4)]
    first, second, third, text = names
    calls = [([first], [1]), ([], []), ([second, third], [2, 3, "more"]), ([first, third], [10, 20])]
    try:
        assert redis_call(lambda client: script.run(client, calls)) == [101, 0, 203, 202]
        assert redis_call(lambda client: client.mget(names)) == [b"11", b"2", b"23", None]
        redis_call(lambda client: client.set(text, "no number"))
        with pytest.raises(RedisDown):
            redis_call(lambda client: script.run(client, [([first], [1]), ([text], [1]), ([third], [1])]))
        breaker.succeeded()
        assert redis_call(lambda client: client.mget(names)) == [b"12", b"2", b"24", b"no number"]
    finally:
        breaker.succeeded()
        redis_call(lambda client: client.delete(*names))


def test_a_script_that_fails_for_one_says_so():
    script = Script("return redis.call('INCR', KEYS[1])")

    def run(client):
        client.set("chatbot:test:text", "text", ex=60)
        return script.run(client, [(["chatbot:test:text"], [])])

    with pytest.raises(RedisDown):
        redis_call(run)
