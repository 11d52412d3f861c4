"""A bounded queue with a few lanes: what arrives while a turn runs is taken by the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from service.storage.database import DatabaseUnavailable

Item = TypeVar("Item")
#: What waits, and whom to tell what came of it.
Waiting = tuple[Item, asyncio.Future[Any]]

#: More work than this is not queued but refused: memory stays bounded, and the caller is told to come again.
MAX_WAITING = 10_000


class Lanes(Generic[Item]):
    """Takes items in turns of at most `most`, with at most `lanes` turns at once, in their order."""

    def __init__(
        self, turn: Callable[[Sequence[Waiting[Item]]], Awaitable[None]], *, most: int, lanes: int
    ) -> None:
        self._turn = turn
        self._most = most
        self._lanes = lanes
        self._waiting: deque[Waiting[Item]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._busy = 0

    async def __call__(self, item: Item) -> Any:
        """This function will return what the item's turn tells its future, or raise it.

        The turn goes on when the waiting caller is canceled.

        :raises DatabaseUnavailable: if too much waits already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise DatabaseUnavailable("more writes wait than the database can do")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((item, future))
        if self._busy < self._lanes:
            self._busy += 1
            lane = loop.create_task(self._lane())
            self._running.add(lane)
            lane.add_done_callback(self._running.discard)
        return await future

    async def _lane(self) -> None:
        try:
            while self._waiting:
                await self._turn(
                    [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
                )
        finally:
            # Not in a callback of the task: who wakes before that runs would find a lane that takes no more work.
            self._busy -= 1

    async def drain(self) -> None:
        """This function will wait until nothing waits and no turn runs."""
        while self._running:
            await asyncio.wait(self._running)


def tell(future: asyncio.Future[Any], *, value: Any = None, error: Exception | None = None) -> None:
    """This function will tell a waiting caller what came of his item, unless he has gone."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
