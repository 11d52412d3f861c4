"""Drain: send to one endpoint what is due, for as long as this process holds it.

Rule 1: of each job only the oldest delivery that has not ended is on its way; the next goes when that is recorded.
Rule 2: while the endpoint fails, one request at a time: three failures pause it, and nothing more was tried in vain.
Rule 3: the rows decide. The endpoint, its secrets and what is due are read again whenever something stirs, so that
what a caller changed counts at once.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

import structlog

from service.domain.endpoint import AfterTry, Endpoint, Tried
from service.domain.sealing import Unsealable
from service.flows.conclude import Conclude
from service.flows.database_clock import DatabaseClock
from service.flows.deliver import post
from service.flows.runtime import Runtime
from service.flows.signing import Sealed, Secrets, opened, sealed_of
from service.storage import deliveries, endpoints
from service.storage.database import DatabaseUnavailable, Tx
from service.storage.deliveries import ToSend

#: Nothing is known of an endpoint at first: so many requests at once, one more for each success.
_FIRST_AT_ONCE = 2
#: The rows are looked at again so often while something is on its way.
_LOOK_EVERY_S = 1.0
#: Who has answered makes room for the next before that is recorded, but not without end.
_MOST_UNRECORDED = 256
#: A pause that the rate asks for and that is longer than this is spent by giving the endpoint back.
_SHORT_PAUSE_MS = 50
#: The rows are read at most so often.
_READ_EVERY_S = 0.005
#: After a failure of ours, and while a secret cannot be opened, the endpoint rests so long.
_REST_MS = 30_000
_OUTAGE_MS = 1_000

_log = structlog.get_logger("fluxgate.deliver")


class Drain:
    """The sending to one claimed endpoint."""

    def __init__(
        self,
        runtime: Runtime,
        endpoint: Endpoint,
        *,
        clock: DatabaseClock,
        conclude: Conclude,
        share: Callable[[], int],
    ) -> None:
        self._runtime = runtime
        #: All that is due is due by the database's clock.
        self._clock = clock
        self._conclude = conclude
        #: How many requests one endpoint may have on their way, so that all of this process have theirs.
        self._share = share
        self.endpoint = endpoint
        self.begun_ms = runtime.now_ms()
        #: How many requests it has begun.
        self.begun = 0
        #: Nothing is sent before: after trouble of ours; and the next request, because of the rate.
        self.rest_ms = 0
        self._rate_ms = 0.0
        self._secrets = Secrets(())
        #: What `_secrets` was made of.
        self._opened: tuple[Sealed, tuple[str, ...]] | None = None
        self._waiting: deque[ToSend] = deque()
        self._busy: dict[str, asyncio.Task[None]] = {}
        #: Of these, how many are on their way, and how many failed and are not recorded yet.
        self._sending = self._failed = 0
        self._window = _FIRST_AT_ONCE
        self._concluded = 0
        self._leaving = False
        #: Something may wait that was not read; and what was read may be no longer so.
        self._unread = self._stale = True
        self._read_at = 0.0
        self._stirred = asyncio.Event()

    def leave(self) -> None:
        """This function will begin nothing more; what is on its way is finished."""
        self._leaving = True
        self._stirred.set()

    def stir(self) -> None:
        """This function will have more read as soon as there is room for more."""
        self._unread = True
        self._stirred.set()

    def refresh(self) -> None:
        """This function will have all read again at once: somebody may have changed the endpoint."""
        self._stale = True
        self.stir()

    async def run(self, linger_s: float) -> None:
        """This function will send until nothing has been due for `linger_s`, or it is told to leave."""
        try:
            while True:
                self._stirred.clear()
                if self._stale or (self._unread and len(self._waiting) < self._room()):
                    if not self._stale:
                        self._begin()
                    await self._read()
                pause_s = self._begin()
                if self._busy:
                    await self._stir_within(min(pause_s, _LOOK_EVERY_S))
                elif self._resting() or (self._waiting and pause_s * 1000 > _SHORT_PAUSE_MS):
                    return
                elif self._waiting:
                    await self._stir_within(min(pause_s, _LOOK_EVERY_S))
                elif not await self._stir_within(linger_s):
                    return
        finally:
            await self._give_up()

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way, and nothing known to be due."""
        return not self._busy and not self._waiting

    @property
    def patient_ms(self) -> int:
        """When this endpoint may be sent to again, as far as only this process knows."""
        return max(self.rest_ms, int(self._rate_ms) + 1 if self._rate_ms > self._clock.now_ms() else 0)

    async def _give_up(self) -> None:
        """Only who is canceled leaves anything on its way; it is sent again by whoever is next."""
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    def _resting(self) -> bool:
        """Whether nothing at all may be sent now."""
        patient_ms = max(self.endpoint.not_before_ms or 0, self.rest_ms)
        return self._leaving or self.endpoint.at_once == 0 or self._clock.now_ms() < patient_ms

    def _room(self) -> int:
        """How many requests may be begun now."""
        if self._resting() or self._failed:
            return 0
        at_once = 1 if self.endpoint.failures else min(self.endpoint.at_once, self._window, self._share())
        return min(at_once - self._sending, _MOST_UNRECORDED - len(self._busy))

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        early_s = self._read_at + _READ_EVERY_S - clock()
        if early_s > 0:
            # What ends and what is handed out meanwhile shares one reading.
            await self._runtime.sleep(early_s)
        self._read_at = clock()
        self._unread = self._stale = False
        busy, concluded = set(self._busy), self._concluded
        known = busy | {waiting.delivery.id for waiting in self._waiting}
        most = len(known) + 2 * self.endpoint.concurrency

        now_ms = self._clock.now_ms()

        def look(tx: Tx) -> tuple[Endpoint | None, Sealed, list[ToSend]]:
            endpoint = endpoints.load(tx, [self.endpoint.id]).get(self.endpoint.id)
            if endpoint is None:
                return None, (), []
            found = deliveries.sendable(tx, endpoint_id=endpoint.id, now_ms=now_ms, most=most)
            return endpoint, sealed_of(tx, endpoint), found

        try:
            endpoint, sealed, found = await self._runtime.door.read(look)
        except DatabaseUnavailable:
            self._rest(_OUTAGE_MS)
            return
        if endpoint is None:
            self.leave()
            return
        if self._concluded == concluded:
            self.endpoint = endpoint
        else:
            # What ended during the reading may have changed the endpoint behind its back.
            self._unread = True
        self._open(endpoint, sealed)
        # What was on its way when the reading began may have been recorded since: the reading did not see that.
        known |= set(self._busy)
        self._waiting.extend(each for each in found if each.delivery.id not in known)
        self._unread = self._unread or len(found) == most

    def _open(self, endpoint: Endpoint, sealed: Sealed) -> None:
        if (sealed, endpoint.signatures) == self._opened:
            return
        try:
            self._secrets = opened(self._runtime, endpoint, sealed)
            self._opened = (sealed, endpoint.signatures)
        except Unsealable as error:
            _log.error("secret_unsealable", endpoint_id=endpoint.id, reason=str(error))
            self._rest(_REST_MS)

    def _rest(self, milliseconds: int) -> None:
        """After trouble of our own nothing is sent for a while; what waits is read again then."""
        self.rest_ms = self._clock.now_ms() + milliseconds
        self._waiting.clear()

    def _begin(self) -> float:
        """Begin what may be begun; tells after how many seconds the rate allows more."""
        if self._resting():
            self._waiting.clear()
        for _ in range(min(self._room(), len(self._waiting))):
            wait_ms = self._rate_ms - self._clock.now_ms()
            if wait_ms > 0:
                return wait_ms / 1000
            self._send(self._waiting.popleft())
        return float("inf")

    def _send(self, sending: ToSend) -> None:
        if self.endpoint.rate_per_s is not None:
            # Who comes a little late may catch up; nobody saves up more.
            now_ms = self._clock.now_ms()
            self._rate_ms = max(self._rate_ms or now_ms, now_ms - _SHORT_PAUSE_MS)
            self._rate_ms += 1000 / self.endpoint.rate_per_s
        self.begun += 1
        self._sending += 1
        task = asyncio.create_task(self._deliver(sending))
        self._busy[sending.delivery.id] = task
        task.add_done_callback(lambda _: self._ended(sending.delivery.id))

    def _ended(self, delivery_id: str) -> None:
        del self._busy[delivery_id]
        self.stir()

    async def _deliver(self, sending: ToSend) -> None:
        try:
            tried = await self._post(sending)
            failed = 0 if tried.succeeded else 1
            self._failed += failed
            try:
                after = await self._conclude(sending.delivery, tried)
            finally:
                self._failed -= failed
        except Exception:  # noqa: BLE001 - not recorded: it is sent again, but not at once and for ever
            _log.exception("delivery_not_recorded", delivery_id=sending.delivery.id)
            self._rest(_REST_MS)
        else:
            self._learn(after)

    async def _post(self, sending: ToSend) -> Tried:
        try:
            return await post(self._runtime, self.endpoint, sending.delivery, sending.event, self._secrets)
        finally:
            self._sending -= 1
            self._stirred.set()

    def _learn(self, after: AfterTry | None) -> None:
        self._concluded += 1
        if after is None:
            self.leave()
            return
        self.endpoint = after.endpoint
        if after.endpoint.failures:
            self._window = max(1, self._window // 2)
        else:
            self._window = min(self._window + 1, after.endpoint.concurrency)

    async def _stir_within(self, seconds: float) -> bool:
        """Wait until something stirs; after `seconds` the rows are to be looked at again in any case."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
                return True
        self._unread = True
        return False
