"""The tail of the stream: the newest events of all tenants, read once for every reader in this process.

Rule 1: a reader holds a position and nothing else; what it has not sent yet stands in the ring or in the database, so
a slow reader costs no memory, and a thousand idle ones cost no reads.
Rule 2: only readers that an event is for are woken, a few at a time, so that one event for a thousand readers does not
hold up everybody else.
Rule 3: inside the ring nothing can be missing; behind it a reader reads the database, which also tells whether what
stood at its position is pruned.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from service.flows.reader import Reader
from service.flows.ring import Ring, Size
from service.flows.runtime import Runtime
from service.storage import events as stored
from service.storage import stream
from service.storage.database import DatabaseUnavailable
from service.storage.events import Event

_SWEEP_S = 1.0
#: What is committed in these milliseconds after events were found shares the next read.
_GATHER_S = 0.003
#: Events that one read takes.
_AT_ONCE = 500
#: So many readers are woken before everybody else has a turn.
_WOKEN_AT_ONCE = 64

_log = structlog.get_logger("fluxgate.tail")


@dataclass(frozen=True, slots=True)
class Pace:
    """How a stream of events is written."""

    #: A comment line so often, in seconds.
    beat_s: float = 15.0
    #: A reader that takes nothing for so long is dropped.
    stuck_s: float = 20.0
    #: Events that are sent at once.
    most: int = 32


class Tail:
    """The ring of the newest events, kept up while anybody reads it."""

    def __init__(self, runtime: Runtime, *, size: Size | None = None) -> None:
        self.runtime = runtime
        self.ring = Ring(size or Size())
        #: Whether the ring is kept up.
        self.live = False
        self.closed = False
        self._readers: set[Reader] = set()
        self._waiting: dict[tuple[str, str | None], set[Reader]] = {}
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """This function will begin to follow the stream, as soon as there is a reader."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """This function will end every reader and stop following."""
        self.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def close(self) -> None:
        """This function will end every reader at once: the service is stopping."""
        self.closed = True
        for reader in list(self._readers):
            reader.end()

    def reader(
        self,
        *,
        tenant: str,
        after: int | None,
        types: Sequence[str] | None = None,
        job_id: str | None = None,
    ) -> Reader:
        """This function will make a reader of a tenant's events behind `after`; None begins with the oldest kept.

        It may read at once; to wait it must be entered as a context.
        """
        return Reader(self, tenant=tenant, after=after, types=types, job_id=job_id)

    def behind(self, position: int) -> bool:
        """This function will tell whether what follows a position is no longer in the ring, or not yet known."""
        return not self.live or position < self.ring.low

    def enter(self, reader: Reader) -> None:
        """This function will keep the ring up for a reader."""
        self._readers.add(reader)
        self._wanted.set()

    def leave(self, reader: Reader) -> None:
        """This function will forget a reader; without any the ring is given up."""
        self._readers.discard(reader)
        if not self._readers:
            self._wanted.clear()

    def await_news(self, reader: Reader) -> None:
        """This function will have a reader woken by the next event that is for it."""
        self._waiting.setdefault((reader.tenant, reader.job_id), set()).add(reader)

    def await_no_news(self, reader: Reader) -> None:
        """This function will take that back."""
        key = (reader.tenant, reader.job_id)
        waiting = self._waiting.get(key, set())
        waiting.discard(reader)
        if not waiting:
            self._waiting.pop(key, None)

    async def _run(self) -> None:
        runtime = self.runtime
        while True:
            if not self._wanted.is_set():
                self.live = False
                self.ring.begin(0)
                await self._wanted.wait()
            ticket = runtime.bell.ticket("feed")
            found = await self._safely()
            if await runtime.bell.wait("feed", ticket, _SWEEP_S) and found:
                await runtime.sleep(_GATHER_S)

    async def _safely(self) -> bool:
        """Catch up; the loop outlives every failure. Tells whether there was anything new."""
        try:
            if not self.live:
                self.ring.begin(await self.runtime.door.read(stored.latest_seq))
                self.live = True
                # They look once more: what was numbered before the ring began is only in the database.
                for reader in self._readers:
                    reader.wake()
            return await self._catch_up()
        except DatabaseUnavailable as error:
            _log.warning("database_unavailable", loop="tail", reason=str(error))
        except Exception:  # noqa: BLE001 - a loop outlives every failure
            _log.exception("loop_failed", loop="tail")
        return False

    async def _catch_up(self) -> bool:
        ring, began = self.ring, self.ring.head
        while True:
            news = await self.runtime.door.read(partial(stream.newest, after=ring.head, most=_AT_ONCE))
            if news:
                ring.keep(news)
                await self._wake(news)
            if len(news) < _AT_ONCE:
                return ring.head > began

    async def _wake(self, news: list[Event]) -> None:
        """Tell every reader that waits for one of these events, then let them go in small groups."""
        told: list[Reader] = []
        for event in news:
            for key in ((event.tenant, None), (event.tenant, event.job_id)):
                told += [reader for reader in self._waiting.get(key, ()) if reader.tell(event)]
                if event.job_id is None:
                    break
        for place, reader in enumerate(told, start=1):
            reader.wake()
            if place % _WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)
