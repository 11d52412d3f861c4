"""Conclude: record what came of deliveries, many in one transaction, and what follows for their endpoints.

Rule: an endpoint's health is decided from its row as it is then, one try after the other, so that what several
requests in flight bring counts as if it had come one by one.
"""

from dataclasses import dataclass, field

import structlog

from service.domain.endpoint import AfterTry, Delivery, DeliveryState, Endpoint, Tried, after_try
from service.flows.database_clock import DatabaseClock
from service.flows.endpoints import BURIED, bury, event_about
from service.flows.runtime import Runtime
from service.storage import deliveries, endpoints, events
from service.storage.batch import Batch
from service.storage.database import DatabaseUnavailable, Tx, WriteConflict

_log = structlog.get_logger("fluxgate.endpoints")


@dataclass(slots=True)
class _Ledger:
    """What one transaction will write."""

    endpoints: dict[str, Endpoint]
    changed: set[str] = field(default_factory=set)
    made: list[AfterTry] = field(default_factory=list)


class Conclude:
    """The tries of this process, of all endpoints, written together."""

    def __init__(self, runtime: Runtime, clock: DatabaseClock | None = None) -> None:
        self._runtime = runtime
        self._clock = clock or DatabaseClock(runtime)
        self._batch = Batch(runtime.door, self._handle, lanes=1)

    async def __call__(self, delivery: Delivery, tried: Tried) -> AfterTry | None:
        """This function will record a try, however long the database is away; None: its endpoint is gone."""
        wait_s = 0.05
        while True:
            try:
                after = await self._batch((delivery, tried))
            except (DatabaseUnavailable, WriteConflict):
                await self._runtime.sleep(wait_s)
                wait_s = min(wait_s * 2, 2.0)
            else:
                if after is not None:
                    self._tell(after)
                return after

    def _handle(self, tx: Tx, items: list[tuple[Delivery, Tried]]) -> list[AfterTry | None]:
        ids = sorted({delivery.endpoint_id for delivery, _ in items})
        if not all(tried.succeeded for _, tried in items):
            self._hold_before_disabling(tx, ids, items)
        ledger = _Ledger(endpoints.load(tx, ids, lock=True))
        now_ms = self._clock.now_ms()
        after = [self._decide(ledger, delivery, tried, now_ms) for delivery, tried in items]
        deliveries.record(tx, [(made.delivery, made.made) for made in ledger.made])
        self._write(tx, ledger, now_ms)
        return after

    def _hold_before_disabling(self, tx: Tx, ids: list[str], items: list[tuple[Delivery, Tried]]) -> None:
        """Who disables holds the fan-out, and takes it before any endpoint, as the fan-out itself does."""
        likely = _Ledger(endpoints.load(tx, ids))
        now_ms = self._clock.now_ms()
        told = [self._decide(likely, delivery, tried, now_ms) for delivery, tried in items]
        if any(after is not None and after.disabled for after in told):
            events.hold_fan_out(tx)

    def _decide(self, ledger: _Ledger, delivery: Delivery, tried: Tried, now_ms: int) -> AfterTry | None:
        before = ledger.endpoints.get(delivery.endpoint_id)
        if before is None:
            return None
        after = after_try(before, delivery, tried, now_ms=now_ms, jitter=self._runtime.chance())
        ledger.made.append(after)
        ledger.endpoints[before.id] = after.endpoint
        if after.endpoint is not before:
            ledger.changed.add(before.id)
        return after

    def _write(self, tx: Tx, ledger: _Ledger, now_ms: int) -> None:
        endpoints.save_many(tx, [ledger.endpoints[changed] for changed in sorted(ledger.changed)])
        for after in ledger.made:
            endpoint = after.endpoint
            if after.was_away:
                # What waited out its schedule while the endpoint was away goes now, the oldest first.
                deliveries.hasten(tx, endpoint.id, due_ms=now_ms)
            if after.disabled:
                # Already held, unless this was not foreseen: then who hands out meanwhile may make us begin anew.
                events.hold_fan_out(tx)
                bury(tx, endpoint.id, BURIED, now_ms)
                events.append(tx, [event_about(self._runtime, endpoint, "endpoint.disabled")])

    def _tell(self, after: AfterTry) -> None:
        """The log names no URL: there may be a secret in it."""
        endpoint, delivery = after.endpoint, after.delivery
        self._runtime.measures.deliveries.labels(_outcome(after)).inc()
        if after.disabled:
            self._runtime.bell.ring({"feed"})
            _log.warning("endpoint_disabled", endpoint_id=endpoint.id, reason=str(endpoint.disabled_reason))
        elif after.paused:
            _log.warning("endpoint_paused", endpoint_id=endpoint.id, error=delivery.error)
        elif after.recovered:
            _log.info("endpoint_recovered", endpoint_id=endpoint.id)
        if delivery.state is DeliveryState.DEAD:
            _log.warning(
                "delivery_dead", delivery_id=delivery.id, endpoint_id=endpoint.id, error=delivery.error
            )


def _outcome(after: AfterTry) -> str:
    if after.delivery.state is DeliveryState.PENDING:
        return "failed"
    return after.delivery.state.value
