"""Examinations of Redis: whether it answers, takes writes and keeps what limits need."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import redis
from django.conf import settings

from observability.doctor.examination import CACHE, Examination, Finding, in_thread, register_examination
from observability.doctor.postgresql import apart
from observability.redis import PREFIX

_WITHIN_S: Final = 2.0
_OLDEST: Final = (6, 2)
_EVICTS_ALL: Final = "allkeys-"
_AWAY: Final = "Without it limits are counted by each process alone, and nothing is cached."


def register_redis_examinations() -> None:
    """Register them; observability's `ready()` calls it."""
    remedy = f"Start Redis or Valkey, or correct REDIS_URL. {_AWAY}"
    register_examination(Examination(name=CACHE, run=in_thread(_look_at_cache), remedy=remedy))
    register_examination(Examination(name="cache eviction", run=in_thread(_look_at_policy), needs=(CACHE,), remedy=remedy))
    register_examination(Examination(name="clock of Redis", run=in_thread(_look_at_clock), needs=(CACHE,), remedy=remedy))


@contextmanager
def _connected() -> Iterator[Any]:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=_WITHIN_S, socket_timeout=_WITHIN_S, retry=None)
    try:
        yield client
    finally:
        client.close()


def _look_at_cache() -> Sequence[Finding]:
    if not settings.REDIS_URL:
        return [Finding.failed("no Redis is named", "Set REDIS_URL.")]
    try:
        with _connected() as client:
            about = client.info("server")
            client.set(f"{PREFIX}doctor", "1", ex=10)
    except redis.exceptions.TimeoutError:
        return [
            Finding.failed(
                f"no answer within {_WITHIN_S:.0f} s", f"See that it runs and is not overloaded; restart it if it hangs. {_AWAY}"
            )
        ]
    except redis.exceptions.NoPermissionError:
        return [Finding.failed("its user may not run INFO or write keys", f"Allow it that, for keys that begin with {PREFIX}")]
    except redis.exceptions.AuthenticationError:
        return [Finding.failed("it refuses the user or the password", "Correct them in REDIS_URL.")]
    except redis.exceptions.ReadOnlyError:
        return [Finding.failed("it takes no writes: it is a replica", "Name the primary in REDIS_URL.")]
    except redis.exceptions.OutOfMemoryError:
        return [Finding.failed("it is full and takes no writes", "Raise its maxmemory, or set its maxmemory-policy to volatile-lru.")]
    except redis.exceptions.ConnectionError:
        return [Finding.failed("it cannot be reached", f"Start Redis or Valkey, or correct REDIS_URL. {_AWAY}")]
    name, version = ("Valkey", about["valkey_version"]) if "valkey_version" in about else ("Redis", about["redis_version"])
    if tuple(int(part) for part in str(about["redis_version"]).split(".")[:2]) < _OLDEST:
        return [Finding.failed(f"{name} {version} is too old", "Use Redis 6.2 or newer, or Valkey.")]
    return [Finding.ok(f"{name} {version}")]


def _look_at_policy() -> Sequence[Finding]:
    with _connected() as client:
        about = client.info("memory")
    policy, limit = str(about.get("maxmemory_policy", "noeviction")), int(about.get("maxmemory", 0))
    seen = f"{policy}, {limit // 2**20} MB" if limit else f"{policy}, without a limit"
    remedy = "Set its maxmemory-policy to volatile-lru."
    if policy.startswith(_EVICTS_ALL):
        return [Finding.warning(f"{seen}: when it is full it may forget any key, those that count limits and hold places too", remedy)]
    if policy == "noeviction" and limit:
        return [Finding.warning(f"{seen}: when it is full it takes no writes, and limits are counted by each process alone", remedy)]
    return [Finding.ok(seen)]


def _look_at_clock() -> Sequence[Finding]:
    with _connected() as client:
        client.ping()
        began = time.time()
        seconds, microseconds = client.time()
        return [apart(datetime.fromtimestamp(seconds + microseconds / 1e6, UTC), began=began, ended=time.time())]
