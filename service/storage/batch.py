"""Many calls of one kind, one transaction: what arrives while a batch is being written goes into the next one."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from service.storage.database import DatabaseUnavailable, Tx
from service.storage.door import MAX_WAITING, Door

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batch(Generic[Item, Result]):
    """Collects concurrent calls into transactions of at most `most` items.

    `handle` gets the items of one transaction and returns a result for each, in their order. When it raises, the
    items are tried again one by one, so that a bad one harms only itself.
    """

    def __init__(
        self, door: Door, handle: Callable[[Tx, list[Item]], list[Result]], *, most: int = 200, lanes: int = 1
    ) -> None:
        self._door = door
        self._handle = handle
        self._most = most
        self._lanes = lanes
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._busy = 0

    async def __call__(self, item: Item) -> Result:
        """This function will return the item's own result once it is committed, or raise its own error."""
        if len(self._waiting) >= MAX_WAITING:
            raise DatabaseUnavailable("more writes wait than the database can do")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._busy < self._lanes:
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
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
        try:
            results = await self._written([item for item, _ in taken])
        except DatabaseUnavailable as error:
            for _, future in taken:
                _fail(future, error)
        except Exception as error:  # noqa: BLE001 - each item hears of its own
            if len(taken) == 1:
                _fail(taken[0][1], error)
            else:
                await self._one_by_one(taken)
        else:
            for (_, future), result in zip(taken, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _written(self, items: list[Item]) -> list[Result]:
        def work(tx: Tx) -> list[Result]:
            return self._handle(tx, items)

        return await self._door.write(work)

    async def _one_by_one(self, taken: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        for item, future in taken:
            try:
                results = await self._written([item])
            except Exception as error:  # noqa: BLE001 - it belongs to this item alone
                _fail(future, error)
            else:
                if not future.done():
                    future.set_result(results[0])


def _fail(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
