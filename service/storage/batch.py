"""Many calls of one kind, one transaction: what arrives while a batch is being written goes into the next one."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

from service.storage.database import DatabaseUnavailable, Tx
from service.storage.door import Door
from service.storage.lanes import Lanes, Waiting, tell

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
        self._lanes = Lanes(self._turn, most=most, lanes=lanes)

    async def __call__(self, item: Item) -> Result:
        """This function will return the item's own result once it is committed, or raise its own error."""
        return cast(Result, await self._lanes(item))

    async def _turn(self, taken: Sequence[Waiting[Item]]) -> None:
        try:
            results = await self._written([item for item, _ in taken])
        except DatabaseUnavailable as error:
            for _, future in taken:
                tell(future, error=error)
        except Exception as error:  # noqa: BLE001 - each item hears of its own
            if len(taken) == 1:
                tell(taken[0][1], error=error)
            else:
                await self._one_by_one(taken)
        else:
            for (_, future), result in zip(taken, results, strict=True):
                tell(future, value=result)

    async def _written(self, items: list[Item]) -> list[Result]:
        def work(tx: Tx) -> list[Result]:
            return self._handle(tx, items)

        return await self._door.write(work)

    async def _one_by_one(self, taken: Sequence[Waiting[Item]]) -> None:
        for item, future in taken:
            try:
                [result] = await self._written([item])
            except Exception as error:  # noqa: BLE001 - it belongs to this item alone
                tell(future, error=error)
            else:
                tell(future, value=result)
