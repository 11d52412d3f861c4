"""Sink: publish the stream of events to a broker, from where the broker has it, one process at a time.

Rule 1: an event is behind us only when the broker confirmed it; the cursor in the database never runs ahead.
Rule 2: what a broker can tell of its own end counts more than our cursor: nothing that it has is sent again, and what
it lost is, as far as we still keep it. An end that is not ours stops the sink instead of skipping events.
Rule 3: an event that is too large for a broker goes there without its `data`, and the log says so: a stream that
stands still for one event would be worse, and one that leaves it out would have a gap.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import structlog

from service.domain.schedule import backoff_ms
from service.flows.runtime import Runtime
from service.flows.sink_messages import message_of, portion, thinned
from service.sinks.base import Kind, Message, Sink, SinkTrouble, TooLarge
from service.storage import events, sinks
from service.storage.database import DatabaseUnavailable, Tx

#: So long a sink with nothing to do waits for a wake-up before it looks by itself.
SWEEP_S = 1.0
_MOST = 256
#: Longer than any client library waits by itself; then it is stuck.
_PATIENCE_S = 20.0
_CLOSE_S = 1.0
_FIRST_WAIT_MS, _LONGEST_WAIT_MS = 500, 15_000

_log = structlog.get_logger("fluxgate.sink")

T = TypeVar("T")


class Lost(Exception):
    """The sink is no longer ours: the lease ran out while the database or we stood still."""


class Publisher:
    """Feeds one sink from this process, while no other does."""

    def __init__(self, runtime: Runtime, sink: Sink) -> None:
        self._runtime = runtime
        self._sink = sink
        #: Whether the lease is ours, as far as we know.
        self.held = False
        self._cursor = 0
        #: The last event that the broker has; None: there is no connection.
        self._position: int | None = None
        self._shown_trouble: str | None = None
        self._tries = 0
        self._down_since_ms: int | None = None
        self._told: set[Kind] = set()

    @property
    def name(self) -> str:
        """The sink's name, which is its row's."""
        return self._sink.name

    async def turn(self) -> float:
        """This function will publish the next set; tells after how many seconds to come again, 0 for at once.

        :raises DatabaseUnavailable: if the database is gone.
        """
        try:
            if not self.held and not await self._claim():
                return SWEEP_S
            return await self._publish_next()
        except Lost:
            await self._let_go()
            return SWEEP_S
        except SinkTrouble as trouble:
            return await self._give_up(trouble)

    async def _claim(self) -> bool:
        lease_ms, mine = self._runtime.timing.lease_ms, self._runtime.process_id
        claimed = await self._runtime.door.write(
            lambda tx: sinks.claim(tx, self.name, mine=mine, lease_ms=lease_ms)
        )
        if claimed is None:
            return False
        self.held, self._cursor, self._shown_trouble = True, claimed.seq, claimed.trouble
        return True

    async def _publish_next(self) -> float:
        if self._position is None:
            self._position = await self._begin()
        position = self._position
        found = await self._runtime.door.read(lambda tx: sinks.events_after(tx, position, most=_MOST))
        if found:
            await self._publish([message_of(event) for event in found])
        elif self._shown_trouble is not None or position != self._cursor:
            await self._store(position)
        if self._tries:
            self._recovered()
        return 0.0 if len(found) == _MOST else SWEEP_S

    async def _begin(self) -> int:
        """Connect, and find out behind which event to go on."""
        tail = await self._patiently(self._sink.open())
        if tail is None:
            return self._cursor

        def look(tx: Tx) -> tuple[int, str | None]:
            return events.latest_seq(tx), sinks.event_id(tx, tail.seq)

        latest, kept = await self._runtime.door.read(look)
        if tail.seq > latest or (None not in (tail.event_id, kept) and tail.event_id != kept):
            raise SinkTrouble(Kind.FOREIGN, "the stream holds events of another installation")
        if tail.seq < self._cursor:
            _log.warning("sink_goes_back", sink=self.name, confirmed=self._cursor, found=tail.seq)
        return tail.seq

    async def _publish(self, messages: Sequence[Message]) -> None:
        left = list(messages)
        while left:
            assert self._position is not None
            try:
                taken = await self._patiently(self._sink.publish(portion(left), after=self._position))
            except TooLarge as refused:
                if left[0].thinned:
                    raise
                self._say_thinned(left[0], refused)
                left[0] = thinned(left[0])
                continue
            self._position = left[taken - 1].seq
            del left[:taken]
            await self._store(self._position)

    async def _store(self, seq: int) -> None:
        lease_ms, mine = self._runtime.timing.lease_ms, self._runtime.process_id
        ours = await self._runtime.door.write(
            lambda tx: sinks.move(tx, self.name, mine=mine, seq=seq, lease_ms=lease_ms)
        )
        if not ours:
            raise Lost
        self._cursor, self._shown_trouble = seq, None

    async def renew(self) -> None:
        """This function will hold the lease on; that it is lost is noticed when the cursor is stored."""
        lease_ms, mine = self._runtime.timing.lease_ms, self._runtime.process_id
        if self.held:
            await self._runtime.door.write(
                lambda tx: sinks.renew(tx, self.name, mine=mine, lease_ms=lease_ms)
            )

    async def _patiently(self, doing: Awaitable[T]) -> T:
        """Wait for the broker, not without end; whatever else goes wrong in a client library is told by its type."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await doing
        except SinkTrouble:
            raise
        except TimeoutError:
            raise SinkTrouble(Kind.TIMEOUT, "no answer") from None
        except Exception as error:  # noqa: BLE001 - it may quote a URL with a password in it
            raise SinkTrouble(Kind.DEFECT, f"{type(error).__name__} in the client library") from None

    async def _give_up(self, trouble: SinkTrouble) -> float:
        """Let others try, and say what is wrong: in the log once an outage for each kind, in the row every time."""
        await self._hang_up()
        now_ms = self._runtime.now_ms()
        self._down_since_ms = self._down_since_ms or now_ms
        if trouble.kind not in self._told:
            self._told.add(trouble.kind)
            _log.warning("sink_down", sink=self.name, kind=trouble.kind.value, reason=str(trouble))
        wait_ms = backoff_ms(
            tries=self._tries,
            base_ms=_FIRST_WAIT_MS,
            cap_ms=_LONGEST_WAIT_MS,
            jitter=self._runtime.chance(),
        )
        self._tries += 1
        self.held, since_ms, mine = False, self._down_since_ms, self._runtime.process_id
        await self._runtime.door.write(
            lambda tx: sinks.give_up(tx, self.name, mine=mine, kind=trouble.kind.value, since_ms=since_ms)
        )
        return wait_ms / 1000

    def _recovered(self) -> None:
        down_ms = self._runtime.now_ms() - (self._down_since_ms or self._runtime.now_ms())
        _log.info("sink_up", sink=self.name, down_ms=down_ms, tries=self._tries)
        self._tries, self._down_since_ms, self._told = 0, None, set()

    def _say_thinned(self, message: Message, refused: TooLarge) -> None:
        _log.warning(
            "event_too_large",
            sink=self.name,
            event_id=message.id,
            job_id=message.job_id,
            size=refused.size_bytes,
        )

    async def _hang_up(self) -> None:
        self._position = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._sink.close()

    async def _let_go(self) -> None:
        self.held = False
        await self._hang_up()

    async def end(self) -> None:
        """This function will hang up and give the lease back, so that another process goes on at once."""
        held, mine = self.held, self._runtime.process_id
        await self._let_go()
        if held:
            with contextlib.suppress(DatabaseUnavailable):
                await self._runtime.door.write(lambda tx: sinks.release(tx, self.name, mine=mine))
