"""Redis, which holds only what may be lost: one way to call it, that never keeps a request waiting for one that is gone.

The client is django-redis's, with the short timeouts of `settings.CACHES`. After a failure one caller a second asks again, so an
outage costs one timeout a second in each process, and not one a request.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import redis.exceptions
import structlog
from django_redis import get_redis_connection
from django_redis.exceptions import ConnectionInterrupted

T = TypeVar("T")

log = structlog.get_logger(__name__)

PREFIX: Final = "chatbot:"
"""What every key begins with: others may use the same Redis."""
_REST_S: Final = 1.0


class RedisDown(Exception):
    """Redis does not answer, or did not a moment ago, or cannot do what it is asked."""


class _Breaker:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._is_down = False

    def check(self) -> None:
        if not self._is_down:
            return
        with self._lock:
            now = time.monotonic()
            if now < self._closed_until:
                raise RedisDown("it did not answer a moment ago")
            self._closed_until = now + _REST_S  # one asks for all

    def failed(self, error: Exception) -> None:
        with self._lock:
            self._closed_until = time.monotonic() + _REST_S
            was_down, self._is_down = self._is_down, True
        if not was_down:
            log.warning("redis does not answer", effect="limits are counted by each process, caches miss", reason=str(error))

    def succeeded(self) -> None:
        if not self._is_down:
            return
        with self._lock:
            was_down, self._is_down = self._is_down, False
        if was_down:
            log.info("redis answers again")


_breaker: Final = _Breaker()


def redis_call(work: Callable[[Any], T]) -> T:
    """Return what `work` makes of a Redis client. It runs on the calling thread.

    Raises:
        RedisDown: Redis does not answer, or with an error: it is read-only, say, or full.
    """
    _breaker.check()
    try:
        result = work(get_redis_connection("default"))
    except (redis.exceptions.RedisError, ConnectionInterrupted, OSError) as error:
        _breaker.failed(error)
        raise RedisDown(str(error)) from error
    _breaker.succeeded()
    return result


class Script:
    """A script that Redis runs, many times in one round trip."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()  # how Redis calls it

    def run(self, client: Any, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run the script for each of `calls` (keys, arguments) and return what it answered, in order.

        One round trip; two more where Redis does not know the script yet.

        Raises:
            redis.exceptions.RedisError: it could not, or not for one of them.
        """
        answers = self._send(client, calls)
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, redis.exceptions.NoScriptError)]
        if unknown:
            client.script_load(self._text)
            for place, answer in zip(unknown, self._send(client, [calls[place] for place in unknown]), strict=True):
                answers[place] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _send(self, client: Any, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        pipe = client.pipeline(transaction=False)
        for keys, arguments in calls:
            pipe.evalsha(self._sha, len(keys), *keys, *arguments)
        return list(pipe.execute(raise_on_error=False))
