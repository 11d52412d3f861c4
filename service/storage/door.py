"""The narrow door: flows await `read` and `write` and never learn which database is behind it.

On SQLite what waits is written together, many pieces of work to one commit; on PostgreSQL each piece is a
transaction of its own, a few at once. The executors are arguments, so that a simulation can run everything in line.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from service.storage.database import DatabaseUnavailable, Driver, Outcome, Tx

T = TypeVar("T")

#: More work than this is not queued but refused: memory stays bounded, and the caller is told to come again.
MAX_WAITING = 10_000


class Door:
    """Reads and writes of one database, from one event loop."""

    def __init__(self, driver: Driver, *, writers: Executor, readers: Executor) -> None:
        self.dialect = driver.dialect
        self.lanes = driver.lanes
        self._driver = driver
        self._writers = writers
        self._readers = readers
        self._waiting: deque[tuple[Callable[[Tx], Any], asyncio.Future[Any]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._busy = 0

    async def read(self, work: Callable[[Tx], T]) -> T:
        """This function will run `work` on a consistent snapshot.

        :raises DatabaseUnavailable: if the database is gone.
        """
        result: T = await asyncio.get_running_loop().run_in_executor(self._readers, self._driver.read, work)
        return result

    async def write(self, work: Callable[[Tx], T]) -> T:
        """This function will run `work` in a transaction and return its value once that is committed.

        `work` may run more than once (after a lost race, or when a neighbour in the same commit failed), so it
        must touch nothing but the transaction. It runs to its end also when the waiting caller is canceled.

        :raises DatabaseUnavailable: if the database is gone, or more work waits than it can do.
        :raises WriteConflict: if another transaction was quicker, again and again.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise DatabaseUnavailable("more writes wait than the database can do")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._busy < self._driver.lanes:
            self._busy += 1
            lane = asyncio.get_running_loop().create_task(self._lane())
            self._running.add(lane)
            lane.add_done_callback(self._running.discard)
        return await future

    async def _lane(self) -> None:
        try:
            while self._waiting:
                await self._turn()
        finally:
            # Not in a callback of the task: who wakes before that runs would find a lane that takes no more work.
            self._busy -= 1

    async def _turn(self) -> None:
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._driver.group))]
        outcomes = await self._commit([work for work, _ in taken])
        for (_, future), outcome in zip(taken, outcomes, strict=True):
            if future.done():
                continue
            if outcome.error is not None:
                future.set_exception(outcome.error)
            else:
                future.set_result(outcome.value)

    async def _commit(self, works: list[Callable[[Tx], Any]]) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._writers, self._driver.write, works)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            return [Outcome(error=error) for _ in works]

    async def close(self) -> None:
        """This function will finish what waits and close the connections."""
        while self._running:
            await asyncio.wait(self._running)
        await asyncio.get_running_loop().run_in_executor(self._writers, self._driver.close)
