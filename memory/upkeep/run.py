"""One pass of upkeep over all agents: in small transactions, with its progress beside what each of them did."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import psycopg
import structlog

from memory.isolation import act_for, stop_acting
from memory.models import UpkeepRun
from memory.upkeep import conversations, memories, remains, traces
from memory.upkeep.policy import Policy
from observability.api import connection_parameters, run_burst

log = structlog.get_logger(__name__)
T = TypeVar("T")

Counts = dict[str, dict[str, int]]
"""Rows by agent ("" for what is no agent's) and reason."""
NO_AGENT: Final = ""
BROKEN_OFF: Final = "broken off; the next pass went on"
STOPPED: Final = "stopped; the next pass goes on"
# An arbitrary number, this job's own among the advisory locks of a database.
_LOCK_KEY: Final = 7_205_759_403
# The lock lasts as long as its transaction: behind a transaction pooler, too, and no longer than this process.
# Without parameters: the snapshot of a statement with some would last as long, and vacuum and new indexes wait for it.
_TAKE_LOCK: Final = f"SELECT pg_try_advisory_xact_lock({_LOCK_KEY})"
_STAY_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout = 0"


class AlreadyRunning(Exception):
    """Another process is at it."""


class _Stopped(Exception):
    """The process was asked to stop."""


@dataclass(slots=True)
class _Pass:
    """A pass under way. `row` is stored together with whatever it tells of."""

    row: UpkeepRun
    now: datetime
    stopping: asyncio.Event
    counts: Counts = field(default_factory=dict)

    @property
    def is_dry(self) -> bool:
        return self.row.is_dry

    async def step(self, work: Callable[[], tuple[dict[str, int], T]], *, agent: str) -> T:
        """Do `work` in a transaction that also stores the counts it returns; return the rest of it.

        Raises:
            _Stopped: the process was asked to stop; nothing was done.
        """
        if self.stopping.is_set():
            raise _Stopped
        self.counts, rest = await run_burst(self._work_and_tell, work, agent=agent)
        return rest

    def _work_and_tell(self, work: Callable[[], tuple[dict[str, int], T]], *, agent: str) -> tuple[Counts, T]:
        found, rest = work()
        stop_acting()
        counts = _added(self.counts, agent, found)
        UpkeepRun.objects.filter(pk=self.row.pk).update(counts=counts)
        return counts, rest

    async def progress(self, steps: int) -> None:
        """Store that `steps` more are done."""
        self.row.done += steps
        await run_burst(UpkeepRun.objects.filter(pk=self.row.pk).update, done=self.row.done)


async def run_upkeep(
    policies: Sequence[Policy], *, actor: str, is_dry: bool = False, stopping: asyncio.Event | None = None, now: datetime | None = None
) -> UpkeepRun:
    """Forget what `policies` no longer keep, or only count it; return the finished run.

    Raises:
        AlreadyRunning: another process is at it.
        DatabaseError: the database cannot be reached; what was done is done, and the next pass goes on.
    """
    started_at = now or datetime.now(UTC)
    async with _alone():
        row = await run_burst(_begin, policies, actor=actor, is_dry=is_dry, now=started_at)
        this = _Pass(row, started_at, stopping or asyncio.Event())
        error = ""
        try:
            await _pass_over(policies, this)
        except _Stopped:
            error = STOPPED
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"[:500]
            raise
        finally:
            with contextlib.suppress(Exception):  # the database may be what failed; the next pass ends this one's row then
                row = await run_burst(_end, row.pk, error=error)
    log.info("upkeep done", run=row.pk, dry=is_dry, counts=this.counts, error=error)
    return row


async def _pass_over(policies: Sequence[Policy], this: _Pass) -> None:
    await _clear_remains(this)
    for policy in policies:
        if policy.memory_cap or policy.memory_days:
            await _trim_memories(policy, this)
        if before := policy.conversations_before(this.now):
            await _end_conversations(policy.agent, before, this)
        goes_on = True
        while goes_on:
            clear = partial(traces.clear_traces, policy.agent, before=policy.traces_before(this.now), is_dry=this.is_dry)
            goes_on = await this.step(clear, agent=policy.agent)


async def _clear_remains(this: _Pass) -> None:
    goes_on, after = True, 0
    while goes_on:
        goes_on = await this.step(partial(remains.clear_people, now=this.now, is_dry=this.is_dry), agent=NO_AGENT)
    goes_on = True
    while goes_on:
        after, goes_on = await this.step(partial(remains.clear_owners, now=this.now, after=after, is_dry=this.is_dry), agent=NO_AGENT)
    await this.step(partial(remains.clear_runs, now=this.now, is_dry=this.is_dry), agent=NO_AGENT)


async def _trim_memories(policy: Policy, this: _Pass) -> None:
    """Delete the memories of each of the agent's people that are too old or too many."""
    last = 0
    while owners := await run_burst(memories.next_owners, policy.agent, after=last):
        last = owners[-1]
        for owner in await run_burst(memories.owners_worth_a_look, owners, policy=policy, now=this.now):
            for reason, ids in (await run_burst(memories.due_memories, owner, policy=policy, now=this.now)).items():
                for start in range(0, len(ids), memories.ROWS_AT_ONCE):
                    some = ids[start : start + memories.ROWS_AT_ONCE]
                    await this.step(partial(_forget, some, owner=owner, reason=reason, is_dry=this.is_dry), agent=policy.agent)
        await this.progress(len(owners))


def _forget(ids: Sequence[int], *, owner: int, reason: str, is_dry: bool) -> tuple[dict[str, int], None]:
    if is_dry:
        return {reason: len(ids)}, None
    act_for([owner])
    return {reason: memories.delete_memories(ids, owners=[owner])}, None


async def _end_conversations(agent: str, before: datetime, this: _Pass) -> None:
    """Delete the agent's conversations that had their last turn before `before`."""
    last = 0
    while ids := await run_burst(conversations.next_over, agent, before=before, after=last):
        last = ids[-1]
        if this.is_dry:
            await this.step(partial(conversations.count_ended, ids), agent=agent)
        else:
            while await this.step(partial(conversations.end_conversations, ids, agent=agent, before=before), agent=agent):
                pass  # there are more turns than one transaction takes
        await this.progress(len(ids))


def _begin(policies: Sequence[Policy], *, actor: str, is_dry: bool, now: datetime) -> UpkeepRun:
    """Store a new run, and end those whose process died: this one holds the lock, so none of them is alive."""
    UpkeepRun.objects.filter(finished_at=None).update(finished_at=now, error=BROKEN_OFF)
    total = memories.count_owners([policy.agent for policy in policies if policy.memory_cap or policy.memory_days])
    for policy in policies:
        if before := policy.conversations_before(now):
            total += conversations.count_over(policy.agent, before=before)
    return UpkeepRun.objects.create(is_dry=is_dry, actor=actor, started_at=now, total=total)


def _end(pk: int, *, error: str) -> UpkeepRun:
    UpkeepRun.objects.filter(pk=pk).update(finished_at=datetime.now(UTC), error=error)
    return UpkeepRun.objects.get(pk=pk)


def _added(counts: Counts, agent: str, found: dict[str, int]) -> Counts:
    """Return `counts` with what was `found` for `agent`."""
    own = counts.get(agent, {})
    grown = own | {reason: own.get(reason, 0) + count for reason, count in found.items() if count}
    return counts | {agent: grown} if grown else counts


@contextlib.asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """Keep other processes from a pass of their own.

    Raises:
        AlreadyRunning: one has begun.
    """
    async with await psycopg.AsyncConnection.connect(**connection_parameters()) as lock:
        await lock.execute(_STAY_IDLE)
        taken = await (await lock.execute(_TAKE_LOCK)).fetchone()
        if not (taken and taken[0]):
            raise AlreadyRunning
        yield
