"""The deliverer: hands events out and has what is due at endpoints sent, for as long as the process lives.

Rule 1: the endpoint is what is claimed. One process at a time sends to it, so that order, concurrency and rate need
no counting across processes; what a dead process had claimed falls due again when its lease ends.
Rule 2: a wake-up only makes it quicker; every loop looks by itself every second.
Rule 3: no endpoint starves another: while others wait, one that has been sent to for its slice of time goes to the
back of the row, and all requests on their way are shared among the endpoints of the moment.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

import structlog

from service.domain.endpoint import Endpoint
from service.flows.conclude import Conclude
from service.flows.database_clock import DatabaseClock
from service.flows.drain import Drain
from service.flows.fan_out import MOST, HandedOut, fan_out, replay
from service.flows.runtime import Runtime
from service.storage import deliveries, endpoints
from service.storage.database import DatabaseUnavailable, Tx

_SWEEP_S = 1.0
#: After SIGTERM, what is on its way gets so long; what is cut off then is sent again by whoever is next.
FINISH_S = 8.0
_GIVE_UP_S = 1.0
#: So many endpoints are sent to at once, and so many requests are on their way in all.
_MOST_ENDPOINTS = 128
_MOST_REQUESTS = 512
#: An endpoint is held so long behind its last delivery: while events flow, none waits for a claim.
_LINGER_S = 2.0
_SLICE_MS = 5_000
_IN_VAIN_MS = 1_000
#: The database's clock as we know it may be so far off.
_EARLY_MS = 20
#: While nobody listens, events are passed over in sets of what comes in this time.
_NOBODY_S = 0.1
#: While somebody does, in sets of what comes in this time.
_HAND_OUT_EVERY_S = 0.005

_log = structlog.get_logger("fluxgate.deliver")


class Deliverer:
    """The sending of events of one process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._clock = DatabaseClock(runtime)
        self._conclude = Conclude(runtime, self._clock)
        self._stopping = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._drains: dict[str, Drain] = {}
        #: What is just being given back: if a renewal released it, it could be claimed again before that is done.
        self._giving: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._renewed_ms = runtime.now_ms()
        #: Whether nobody was there for the last events; and whether there was more than one set of them.
        self._nobody = self._behind = False
        #: When each loop last came round, for readiness.
        self.seen_ms: dict[str, int] = {}

    def start(self) -> None:
        """This function will begin to hand out and to send."""
        self._loops = [
            asyncio.create_task(self._loop("fan_out", "feed", self._hand_out, every_s=_HAND_OUT_EVERY_S)),
            asyncio.create_task(self._loop("replay", "replay", self._hand_out_again)),
            asyncio.create_task(self._loop("deliver", "deliver", self.turn)),
        ]

    async def stop(self) -> None:
        """This function will begin nothing more, let what is on its way finish for 8 s, and give everything back.

        Called again, it waits for the same end.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await self._ending

    async def _end(self) -> None:
        self._stopping.set()
        self._runtime.bell.ring(["feed", "replay", "deliver"], relayed=True)
        for drain in self._drains.values():
            drain.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self._keep_until_the_end()
                await asyncio.gather(*self._loops, return_exceptions=True)
                while self._tasks:
                    await asyncio.wait(self._tasks)
        left = {task for task in (*self._loops, *self._tasks) if not task.done()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_GIVE_UP_S)
        with contextlib.suppress(DatabaseUnavailable):
            await self._runtime.door.write(self._release_all)

    async def _keep_until_the_end(self) -> None:
        """Nobody else takes what is still being finished."""
        mine, lease_ms = self._runtime.process_id, int((FINISH_S + _GIVE_UP_S) * 2000)
        if self._drains:
            with contextlib.suppress(DatabaseUnavailable):
                await self._runtime.door.write(lambda tx: endpoints.renew(tx, mine=mine, lease_ms=lease_ms))

    def _release_all(self, tx: Tx) -> None:
        """What was cut off falls due at once, and what a lost answer had claimed."""
        mine = self._runtime.process_id
        held = endpoints.renew(tx, mine=mine, lease_ms=0)
        endpoints.release(tx, sorted(held), mine=mine)

    async def _loop(
        self, name: str, topic: str, act: Callable[[], Awaitable[float]], *, every_s: float = 0.0
    ) -> None:
        """Do it again and again; `act` says after how many seconds at the latest, unless the bell rings.

        It is done at most once in `every_s`.
        """
        bell, clock = self._runtime.bell, asyncio.get_running_loop().time
        while not self._stopping.is_set():
            ticket, began = bell.ticket(topic), clock()
            wait_s = await self._safely(name, act)
            if wait_s > 0:
                await bell.wait(topic, ticket, wait_s)
            else:
                bell.forget(topic, ticket)
            early_s = every_s - (clock() - began)
            if early_s > 0:
                await self._runtime.sleep(early_s)

    async def _safely(self, name: str, act: Callable[[], Awaitable[float]]) -> float:
        """The loops outlive every failure."""
        try:
            wait_s = await act()
        except DatabaseUnavailable as error:
            _log.warning("database_unavailable", loop=name, reason=str(error))
            return _SWEEP_S
        except Exception:  # noqa: BLE001 - a loop outlives every failure
            _log.exception("loop_failed", loop=name)
            return _SWEEP_S
        self.seen_ms[name] = self._runtime.now_ms()
        return wait_s

    async def _hand_out(self) -> float:
        if self._nobody and not self._behind:
            await self._runtime.sleep(_NOBODY_S)
        self._behind = await self.hand_out() >= MOST
        return 0.0 if self._behind else _SWEEP_S

    async def hand_out(self) -> int:
        """This function will hand out one set of new events; tells how many they were."""
        await self._clock.ask()
        return self._wake(await fan_out(self._runtime, self._clock.now_ms()))

    async def _hand_out_again(self) -> float:
        return 0.0 if await self.hand_out_again() else _SWEEP_S

    async def hand_out_again(self) -> int:
        """This function will go one step on with a replay, if there is one."""
        if not await self._runtime.door.read(lambda tx: endpoints.replaying(tx, most=1)):
            return 0
        return self._wake(await replay(self._runtime))

    def _wake(self, handed: HandedOut) -> int:
        if handed.events:
            self._nobody = not handed.somebody
        if handed.endpoint_ids:
            # Whom we do not send to is sent to by another process, or by nobody yet.
            others = [each for each in handed.endpoint_ids if each not in self._drains]
            if others:
                self._runtime.bell.ring({"deliver", *(f"endpoint:{each}" for each in others)})
            for each in handed.endpoint_ids:
                if each in self._drains:
                    self._drains[each].stir()
        return handed.events

    async def turn(self) -> float:
        """This function will claim what is due, as much as there is room for, and begin to send it.

        Tells after how many seconds to look again.
        """
        runtime = self._runtime
        await self._clock.ask()
        await self._renew()
        free = _MOST_ENDPOINTS - len(self._drains)
        if free <= 0:
            await self._make_room()
            return self._sweep_s()
        claimed = await runtime.door.write(
            lambda tx: endpoints.claim(
                tx, mine=runtime.process_id, lease_ms=runtime.timing.lease_ms, most=free
            )
        )
        for endpoint in claimed:
            self._begin(endpoint)
        return 0.0 if claimed else await self._idle_s()

    async def _idle_s(self) -> float:
        """How long nothing is due, at most until the next sweep; by the clock that claims go by."""
        due_ms = await self._runtime.door.read(endpoints.next_due_ms)
        wait_ms = _SWEEP_S * 1000 if due_ms is None else due_ms - self._clock.now_ms()
        return min(self._sweep_s(), max(0.005, wait_ms / 1000))

    def _sweep_s(self) -> float:
        """Often enough to renew what is held, however short the operator made the lease."""
        return min(_SWEEP_S, self._runtime.timing.lease_ms / 4000)

    async def _renew(self) -> None:
        """Hold on to what is being sent to. What was lost is let go; what nobody here sends to is given back."""
        runtime, mine = self._runtime, self._runtime.process_id
        began_ms = runtime.now_ms()
        # A clock that was set back says nothing of how long ago that was.
        if 0 <= began_ms - self._renewed_ms < runtime.timing.lease_ms / 3:
            return
        known = set(self._drains) | self._giving

        def work(tx: Tx) -> set[str]:
            held = endpoints.renew(tx, mine=mine, lease_ms=runtime.timing.lease_ms)
            endpoints.release(tx, sorted(held - known), mine=mine)
            return held

        held = await runtime.door.write(work)
        self._renewed_ms = began_ms
        for endpoint_id in known - held:
            if endpoint_id in self._drains:
                self._drains[endpoint_id].leave()

    async def _make_room(self) -> None:
        """While others wait, who is idle or has had its slice of time leaves."""
        due_ms = await self._runtime.door.read(endpoints.next_due_ms)
        if due_ms is None or due_ms > self._clock.now_ms():
            return
        until_ms = self._runtime.now_ms() - _SLICE_MS
        for drain in self._drains.values():
            if drain.idle or drain.begun_ms <= until_ms:
                drain.leave()

    def _share(self) -> int:
        return max(1, _MOST_REQUESTS // max(1, len(self._drains)))

    def _begin(self, endpoint: Endpoint) -> None:
        drain = Drain(self._runtime, endpoint, clock=self._clock, conclude=self._conclude, share=self._share)
        if self._stopping.is_set():
            drain.leave()
        if endpoint.id in self._drains:
            # Its lease had ended while we stood still: who goes on with it is the new one.
            self._drains[endpoint.id].leave()
        self._drains[endpoint.id] = drain
        task = asyncio.create_task(self._drained(drain))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drained(self, drain: Drain) -> None:
        try:
            with self._listening(drain):
                await drain.run(_LINGER_S)
        except Exception:  # noqa: BLE001 - one endpoint's failure is not another's
            _log.exception("drain_failed", endpoint_id=drain.endpoint.id)
        finally:
            # Before it is given back: who hands out meanwhile wakes those who claim.
            ours = self._drains.get(drain.endpoint.id) is drain
            if ours:
                del self._drains[drain.endpoint.id]
        if ours:
            self._giving.add(drain.endpoint.id)
            try:
                await self._give_back(drain)
            finally:
                self._giving.discard(drain.endpoint.id)

    @contextlib.contextmanager
    def _listening(self, drain: Drain) -> Iterator[None]:
        """What another process hands out, or somebody changes, stirs our drain."""
        bell, topic = self._runtime.bell, f"endpoint:{drain.endpoint.id}"
        tickets: list[asyncio.Future[None]] = []

        def listen() -> None:
            tickets[:] = [bell.ticket(topic)]
            tickets[0].add_done_callback(rung)

        def rung(ticket: asyncio.Future[None]) -> None:
            if tickets and ticket is tickets[0]:
                listen()
                drain.refresh()

        listen()
        try:
            yield
        finally:
            bell.forget(topic, tickets.pop())

    async def _give_back(self, drain: Drain) -> None:
        runtime, endpoint_id = self._runtime, drain.endpoint.id

        def work(tx: Tx) -> bool:
            # Held: what another process has just recorded of it, or a caller changed, is seen before the last look.
            endpoint = endpoints.load(tx, [endpoint_id], lock=True).get(endpoint_id)
            if endpoint is None:
                return False
            now_ms = tx.clock_ms()
            due_ms = endpoint.next_due_ms(deliveries.next_ms(tx, endpoint_id))
            if due_ms is not None:
                # At the back of the row; and what was due but could not be begun is not looked at again at once,
                # unless our clock alone found it a moment too early.
                early = (endpoint.not_before_ms or 0) > now_ms - _EARLY_MS
                again_ms = now_ms if drain.begun or early else now_ms + _IN_VAIN_MS
                due_ms = max(due_ms, drain.patient_ms, again_ms)
            endpoints.give_back(
                tx,
                endpoint_id,
                mine=runtime.process_id,
                due_ms=due_ms,
                now_ms=now_ms,
                patient_ms=drain.patient_ms,
            )
            # Somebody may have woken it just now, and those who claim may have looked before we gave it back.
            after_ms = endpoints.load(tx, [endpoint_id])[endpoint_id].due_ms
            return after_ms is not None and after_ms <= now_ms + _SWEEP_S * 1000

        with contextlib.suppress(DatabaseUnavailable):
            # If this fails the lease ends by itself, or the next renewal gives it back.
            if await runtime.door.write(work) or len(self._drains) >= _MOST_ENDPOINTS - 1:
                runtime.bell.ring(["deliver"], relayed=True)
