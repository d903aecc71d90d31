"""Short visits to the database from async code.

A chat turn visits the database twice and holds no connection in between. Each visit (a burst) runs one synchronous
function in a thread, in one transaction, and gives its connection back to the pool when it ends. Bursts of the same kind
that are asked for while one is under way share the next one: one thread hop, one transaction, one commit for many turns,
and nobody is told of success before that commit (group commit). Idle, a burst starts at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Generic, ParamSpec, TypeVar

from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction
from psycopg_pool import PoolTimeout

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

# Far above what a burst takes: a server that hangs (rather than refuses) must not hang every caller with it.
DEADLINE_S: Final = 10.0
_MAX_THREADS: Final = 8
_threads = ThreadPoolExecutor(max_workers=_MAX_THREADS, thread_name_prefix="burst")


async def run_burst(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in one transaction on a thread and return its result; the connection goes back to the pool.

    Raises:
        OperationalError: the database cannot be reached, or did not answer within `DEADLINE_S`.
    """
    work = asyncio.get_running_loop().run_in_executor(_threads, partial(_in_transaction, partial(function, *args, **kwargs)))
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await work
    except TimeoutError:
        raise OperationalError(f"the database did not answer within {DEADLINE_S:.0f} s") from None


def _in_transaction(function: Callable[[], T]) -> T:
    try:
        with transaction.atomic():
            return function()
    except (OperationalError, InterfaceError) as error:
        if isinstance(error.__cause__, PoolTimeout):
            raise
        # The connection may have died with an earlier server, as may the others in the pool: drop them and try once more.
        connection.close()
        _drop_dead_connections()
        try:
            with transaction.atomic():
                return function()
        except IntegrityError as conflict:
            # Most likely the first try was committed and only the word of it was lost.
            raise OperationalError("the connection was lost while a transaction was being committed") from conflict
    finally:
        connection.close()


def _drop_dead_connections() -> None:
    pool = getattr(connection, "pool", None)
    if pool is not None and not pool.closed:
        pool.check()


class GroupCommit(Generic[Item, Result]):
    """Collects items and commits them together with `function`, which returns one result per item, in order.

    Args:
        function: runs inside a transaction; must be safe to run again for the same items after a rollback.
        max_items: the most that one transaction takes.
        parallel: how many transactions of this kind may be under way at once in this process.
    """

    def __init__(self, function: Callable[[Sequence[Item]], Sequence[Result]], *, max_items: int = 64, parallel: int = 2) -> None:
        self._function = function
        self._max_items = max_items
        self._parallel = parallel
        self._under_way = 0
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Return the item's result to be, which is there once the transaction that holds it is committed.

        Awaiting it raises:
            OperationalError: the database cannot be reached.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._under_way < self._parallel:
            self._under_way += 1
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_items))]
                await self._commit(batch)
        finally:
            self._under_way -= 1

    async def _commit(self, batch: list[tuple[Item, asyncio.Future[Result]]], *, is_retry: bool = False) -> None:
        try:
            results = await run_burst(self._commit_together, [item for item, _ in batch])
        except (OperationalError, InterfaceError) as error:
            _fail(batch, error)
        except Exception as error:
            # One bad item must not fail its neighbours. One alone may have met a row that was deleted meanwhile, such as a
            # person's who was erased, and finds things settled the next time.
            if len(batch) == 1 and (is_retry or not isinstance(error, IntegrityError)):
                _fail(batch, error)
                return
            for single in batch:
                await self._commit([single], is_retry=len(batch) == 1)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _commit_together(self, items: Sequence[Item]) -> Sequence[Result]:
        results = self._function(items)
        if len(results) != len(items):
            # Raised inside the transaction, so that nothing is committed of which nobody is told.
            raise ValueError(f"{len(items)} items went in, {len(results)} results came out")
        return results


def _fail(batch: list[tuple[Any, asyncio.Future[Any]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
