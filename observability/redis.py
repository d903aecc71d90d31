"""Redis, which holds only what may be lost: one way to call it, that never keeps a request waiting for one that is gone.

The client is django-redis's, with the short timeouts of `settings.CACHES`. After a failure nobody asks again for a second, so an
outage costs one timeout a second in each process, and not one a request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis.exceptions
import structlog
from django_redis import get_redis_connection

T = TypeVar("T")

log = structlog.get_logger(__name__)

_REST_S: Final = 1.0


class RedisDown(Exception):
    """Redis does not answer, or did not a moment ago."""


class _Breaker:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._is_down = False

    def check(self) -> None:
        if time.monotonic() < self._closed_until:
            raise RedisDown("it did not answer a moment ago")

    def failed(self, error: Exception) -> None:
        with self._lock:
            self._closed_until = time.monotonic() + _REST_S
            was_down, self._is_down = self._is_down, True
        if not was_down:
            log.warning("redis does not answer", effect="limits are counted by each process, caches miss", reason=str(error))

    def succeeded(self) -> None:
        if self._is_down:
            self._is_down = False
            log.info("redis answers again")


_breaker: Final = _Breaker()


def redis_call(work: Callable[[Any], T]) -> T:
    """Return what `work` makes of a Redis client. It runs on the calling thread.

    Raises:
        RedisDown: Redis does not answer.
    """
    _breaker.check()
    try:
        result = work(get_redis_connection("default"))
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        _breaker.failed(error)
        raise RedisDown(str(error)) from error
    _breaker.succeeded()
    return result
