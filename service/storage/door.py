"""The narrow door: flows await `read` and `write` and never learn which database is behind it.

On SQLite what waits is written together, many pieces of work to one commit; on PostgreSQL each piece is a
transaction of its own, a few at once. The executors are arguments, so that a simulation can run everything in line.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar, cast

from service.storage.database import Driver, Outcome, Tx, Work
from service.storage.lanes import Lanes, Waiting, tell

T = TypeVar("T")


class Door:
    """Reads and writes of one database, from one event loop."""

    def __init__(self, driver: Driver, *, writers: Executor, readers: Executor) -> None:
        self.dialect = driver.dialect
        self.lanes = driver.lanes
        self._driver = driver
        self._writers = writers
        self._readers = readers
        self._queue = Lanes(self._turn, most=driver.group, lanes=driver.lanes)

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
        return cast(T, await self._queue(work))

    async def _turn(self, taken: Sequence[Waiting[Work]]) -> None:
        outcomes = await self._commit([work for work, _ in taken])
        for (_, future), outcome in zip(taken, outcomes, strict=True):
            tell(future, value=outcome.value, error=outcome.error)

    async def _commit(self, works: list[Work]) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._writers, self._driver.write, works)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            return [Outcome(error=error) for _ in works]

    async def close(self) -> None:
        """This function will finish what waits and close the connections."""
        await self._queue.drain()
        await asyncio.get_running_loop().run_in_executor(self._writers, self._driver.close)
