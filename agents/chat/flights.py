"""Single flight: of identical prompts at the same time one calls the model, and the others wait for its answer.

In one process they share a future; across processes a lease in Redis says who leads. The leader's process renews it every second,
so nobody waits long for one that was killed. Without Redis one in each process leads.

A flight ends with an answer, or the leader failed (then all who waited call the model themselves, at once), or it left, as its
client did or its process died (then one of those who waited takes its place, and the others go on waiting).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, Final

from agents.chat.replies import FLIGHT_LEASE_MS, CachedReply, flight_name, read_reply, reply_name
from observability.api import RedisDown, Script, redis_call

_RENEW_EVERY_S: Final = 1.0
_LOOK_FIRST_S: Final = 0.02
_LOOK_AT_LEAST_S: Final = 0.25
_FAILED: Final = "failed"
# How long turns of other processes can learn that the leader failed.
_FAILED_MS: Final = 1000

# KEYS: the flight. ARGV: the leader's id, its lease (ms).
_RENEW: Final = Script("""
redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
""")
# KEYS: the flight. ARGV: the leader's id; what is told to those who wait, "" for nothing; for how long (ms).
_END: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
""")


class NoAnswer(Enum):
    """How a flight ended without an answer."""

    FAILED = "failed"
    LEFT = "left"


Landing = CachedReply | NoAnswer


class Flights:
    """The flights that turns of this process lead or wait for, by the reply cache's key."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[Landing]] = {}
        self._leaders: dict[str, str] = {}  # turns of this process, by key
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None

    def lead(self, key: str, turn_id: str) -> bool:
        """Take the lead for `key`; False: another turn of this process has it.

        To be asked only by a turn that leads in Redis, or cannot know.
        """
        if key in self._leaders:
            return False
        self._leaders[key] = turn_id
        self._future(key)
        if self._renewing is None or self._renewing.done():
            self._renewing = self._start(self._renew())
        return True

    def is_led_by(self, key: str, turn_id: str) -> bool:
        return self._leaders.get(key) == turn_id

    async def land(self, key: str, turn_id: str, landing: Landing, *, is_kept: bool = False) -> None:
        """Tell those who wait, in Redis too unless the answer is kept there already. Nothing happens where another turn leads."""
        if self.is_led_by(key, turn_id):
            del self._leaders[key]
            self._end(key, landing)
        if not is_kept:
            await asyncio.to_thread(_end_in_redis, key, turn_id, landing)

    async def wait(self, key: str, turn_id: str, *, seconds: float) -> CachedReply | None:
        """Return the leader's answer; None: call the model yourself, perhaps as the new leader."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left_s := until - loop.time()) > 0:
            if key not in self._under_way:
                self._start(self._watch(key, self._future(key), seconds=left_s))
            try:
                async with asyncio.timeout(left_s):
                    landing = await asyncio.shield(self._under_way[key])
            except TimeoutError:
                return None
            if isinstance(landing, CachedReply):
                return landing
            if landing is NoAnswer.FAILED or await self._take_over(key, turn_id, seconds=until - loop.time()):
                return None
        return None

    async def _take_over(self, key: str, turn_id: str, *, seconds: float) -> bool:
        """Take the place of a leader that left; False: another turn, of this process or another, was faster."""
        if key in self._under_way or not self.lead(key, turn_id):
            return False
        try:
            leads = await asyncio.to_thread(_lead_in_redis, key, turn_id)
        except BaseException:
            await self.land(key, turn_id, NoAnswer.LEFT)
            raise
        if not leads:
            del self._leaders[key]
            self._start(self._watch(key, self._future(key), seconds=seconds))
        return leads

    def _future(self, key: str) -> asyncio.Future[Landing]:
        return self._under_way.setdefault(key, asyncio.get_running_loop().create_future())

    def _end(self, key: str, landing: Landing) -> None:
        if future := self._under_way.pop(key, None):
            future.set_result(landing)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch(self, key: str, future: asyncio.Future[Landing], *, seconds: float) -> None:
        """Ask Redis, for all in this process who wait, how a flight of another process ends."""
        loop = asyncio.get_running_loop()
        until, wait_s = loop.time() + seconds, _LOOK_FIRST_S
        landing: Landing | None = None
        while landing is None and loop.time() < until:
            await asyncio.sleep(wait_s)
            if future.done() or key in self._leaders:  # by now a turn of this process leads, and will say how it ends
                return
            landing = await asyncio.to_thread(_look_for, key)
            wait_s = min(_LOOK_AT_LEAST_S, wait_s * 1.5)
        if not future.done() and key not in self._leaders:
            self._end(key, landing or NoAnswer.LEFT)

    async def _renew(self) -> None:
        """Hold the leases of all flights that are led here."""
        while self._leaders:
            await asyncio.sleep(_RENEW_EVERY_S)
            if self._leaders:
                await asyncio.to_thread(_renew_in_redis, list(self._leaders.items()))


flights: Final = Flights()


def _look_for(key: str) -> Landing | None:
    """Return how a flight ended; None: it has not."""
    try:
        value, leader = redis_call(lambda client: client.mget(reply_name(key), flight_name(key)))
    except RedisDown:
        return NoAnswer.LEFT
    if reply := read_reply(value):
        return reply
    if leader is None:
        return NoAnswer.LEFT
    return NoAnswer.FAILED if leader == _FAILED.encode() else None


def _lead_in_redis(key: str, turn_id: str) -> bool:
    def take(client: Any) -> bool:
        return bool(_RENEW.run(client, [([flight_name(key)], [turn_id, FLIGHT_LEASE_MS])])[0])

    try:
        return redis_call(take)
    except RedisDown:
        return True


def _renew_in_redis(leaders: Sequence[tuple[str, str]]) -> None:
    calls = [([flight_name(key)], [turn_id, FLIGHT_LEASE_MS]) for key, turn_id in leaders]
    with suppress(RedisDown):  # then others may call the model too, rather than wait
        redis_call(lambda client: _RENEW.run(client, calls))


def _end_in_redis(key: str, turn_id: str, landing: Landing) -> None:
    told = _FAILED if landing is NoAnswer.FAILED else ""
    with suppress(RedisDown):  # then the lease ends
        redis_call(lambda client: _END.run(client, [([flight_name(key)], [turn_id, told, _FAILED_MS])]))
