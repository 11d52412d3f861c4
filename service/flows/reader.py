"""One reader of the stream: a position, and the ways to read on from it and to wait for more.

Rule: the position only grows, and never over an event that is for this reader and was not read.
"""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from service.flows.errors import CursorExpired
from service.storage import stream
from service.storage.events import Event

if TYPE_CHECKING:
    from service.flows.tail import Tail


class Reader:
    """One reader's position in the stream."""

    __slots__ = (
        "_found",
        "_from_oldest",
        "_interrupt",
        "_tail",
        "_ticket",
        "ended",
        "job_id",
        "position",
        "tenant",
        "types",
    )

    def __init__(
        self, tail: "Tail", *, tenant: str, after: int | None, types: Sequence[str] | None, job_id: str | None
    ) -> None:
        self.tenant = tenant
        self.job_id = job_id
        self.types = None if types is None else frozenset(types)
        #: Everything up to here was read, or is not for this reader.
        self.position = after or 0
        self.ended = tail.closed
        self._from_oldest = after is None
        self._tail = tail
        self._found: int | None = None
        self._ticket: asyncio.Future[None] | None = None
        self._interrupt: Callable[[], None] | None = None

    def __enter__(self) -> "Reader":
        self._tail.enter(self)
        self.ended = self.ended or self._tail.closed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tail.leave(self)

    def interrupted_by(self, interrupt: Callable[[], None] | None) -> None:
        """This function will have `interrupt` called when the reader is ended while it is busy with something else."""
        self._interrupt = interrupt

    def end(self) -> None:
        """This function will end the reader: it waits for nothing any more."""
        self.ended = True
        self.wake()
        if self._interrupt is not None:
            self._interrupt()

    async def read(self, most: int) -> list[Event]:
        """This function will give the next events, at most so many, and move the position behind them.

        :raises CursorExpired: if events behind the position are pruned.
        :raises DatabaseUnavailable: if they are only in the database, and that is gone.
        """
        if self._from_oldest or self._tail.behind(self.position):
            return await self.read_stored(most)
        found: list[Event] = []
        for event in self._tail.ring.since(self.position):
            if self._wants(event):
                found.append(event)
                if len(found) == most:
                    self.position = event.seq
                    return found
        self.position = max(self.position, self._tail.ring.head)
        return found

    async def read_stored(self, most: int) -> list[Event]:
        """This function will give the next events from the database: also those that were committed a moment ago.

        :raises CursorExpired: if events behind the position are pruned.
        :raises DatabaseUnavailable: if the database is gone.
        """
        types = None if self.types is None else sorted(self.types)
        after = self.position
        page = await self._tail.runtime.door.read(
            lambda tx: stream.page(
                tx, tenant=self.tenant, after=after, most=most, types=types, job_id=self.job_id
            )
        )
        if after < page.pruned and not self._from_oldest:
            raise CursorExpired(page.pruned)
        self._from_oldest = False
        self.position = page.following
        return page.events

    async def wait(self, timeout_s: float) -> None:
        """This function will wait until there may be something new, the reader is ended, or the time is over.

        Call it after a read that gave nothing.
        """
        tail = self._tail
        if self.ended or (tail.live and self.position < tail.ring.head):
            return
        live, self._found = tail.live, None
        self._ticket = asyncio.get_running_loop().create_future()
        tail.await_news(self)
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._ticket
        except TimeoutError:
            pass
        finally:
            self._ticket = None
            tail.await_no_news(self)
            if live:
                self.position = max(self.position, self._passed())

    def _passed(self) -> int:
        """Up to where the ring holds nothing for us that we have not read: it tells us the first of what we want."""
        return self._tail.ring.head if self._found is None else self._found - 1

    def _wants(self, event: Event) -> bool:
        return (
            event.tenant == self.tenant
            and (self.job_id is None or event.job_id == self.job_id)
            and (self.types is None or event.type in self.types)
        )

    def tell(self, event: Event) -> bool:
        """This function will note the first event for this waiting reader; False when it is not, or there is one."""
        if self._found is not None or event.seq <= self.position or not self._wants(event):
            return False
        self._found = event.seq
        return True

    def wake(self) -> None:
        """This function will end the wait, if there is one."""
        if self._ticket is not None and not self._ticket.done():
            self._ticket.set_result(None)
