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


# Runs a script's text for each of many calls, with the call's own KEYS and ARGV. ARGV: how many calls; for each, how many keys and
# how many arguments it has; then all arguments. As one command, because the client takes as long for each answer as Redis for all.
_FOR_EACH: Final = """
local all_keys, all_arguments = KEYS, ARGV
local function answer(KEYS, ARGV)
%s
end
local answers, key, argument = {}, 0, 1 + 2 * tonumber(all_arguments[1])
for call = 1, tonumber(all_arguments[1]) do
    local keys, arguments = {}, {}
    for place = 1, tonumber(all_arguments[2 * call]) do keys[place] = all_keys[key + place] end
    for place = 1, tonumber(all_arguments[2 * call + 1]) do arguments[place] = all_arguments[argument + place] end
    key, argument = key + #keys, argument + #arguments
    local is_done, found = pcall(answer, keys, arguments)
    answers[call] = is_done and found or redis.error_reply(type(found) == 'table' and found.err or found)
end
return answers
"""


class Script:
    """A script that Redis runs, for many calls in one command. Its answer is never nil."""

    def __init__(self, text: str) -> None:
        self._text = _FOR_EACH % text
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()  # how Redis calls it

    def run(self, client: Any, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run the script for each of `calls` (keys, arguments) and return what it answered, in order.

        One round trip; two where Redis does not know the script yet. Nothing else happens in Redis between two calls.

        Raises:
            redis.exceptions.RedisError: it could not, or not for one of them; the others are done.
        """
        keys = [key for own, _ in calls for key in own]
        counts = [count for own, arguments in calls for count in (len(own), len(arguments))]
        sent = (len(keys), *keys, len(calls), *counts, *(argument for _, arguments in calls for argument in arguments))
        try:
            answers = list(client.evalsha(self._sha, *sent))
        except redis.exceptions.NoScriptError:
            answers = list(client.eval(self._text, *sent))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers
