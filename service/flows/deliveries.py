"""Deliveries: what was sent to a tenant's endpoints, and sending one again by hand."""

from dataclasses import dataclass

from service.domain.endpoint import Delivery, EndpointState, Try
from service.flows.endpoints import ring
from service.flows.errors import Conflict, NotFound
from service.flows.runtime import Runtime
from service.storage import deliveries, endpoints, stream
from service.storage.database import Tx
from service.storage.deliveries import Filters


@dataclass(frozen=True, slots=True)
class Whole:
    """A delivery with every try, oldest first."""

    delivery: Delivery
    tries: tuple[Try, ...]


async def listed(
    runtime: Runtime, *, tenant: str, filters: Filters, before_id: str | None, most: int
) -> list[Whole]:
    """This function will list a tenant's deliveries that fit, newest first, those of jobs' own URLs too."""

    def look(tx: Tx) -> list[Whole]:
        found = deliveries.listed(tx, tenant=tenant, filters=filters, before_id=before_id, most=most)
        return _wholes(tx, found)

    return await runtime.door.read(look)


async def one(runtime: Runtime, *, tenant: str, delivery_id: str) -> Whole:
    """This function will read one delivery.

    :raises NotFound: if the tenant has no such delivery.
    """
    return await runtime.door.read(lambda tx: _wholes(tx, [_own(tx, tenant, delivery_id)])[0])


async def retry(runtime: Runtime, *, tenant: str, delivery_id: str) -> Whole:
    """This function will make a delivery due now, with its whole schedule before it; also one that had ended.

    :raises NotFound: if the tenant has no such delivery.
    :raises Conflict: if its endpoint is disabled, or its event no longer kept.
    """

    def work(tx: Tx) -> Whole:
        before = _own(tx, tenant, delivery_id)
        endpoint = endpoints.load(tx, [before.endpoint_id], lock=True).get(before.endpoint_id)
        if endpoint is None or endpoint.state is EndpointState.DISABLED:
            raise Conflict("its endpoint is disabled; make it active first")
        stream.hold_pruning(tx)
        if before.event_seq <= stream.pruned_seq(tx, tenant):
            raise Conflict("its event is no longer kept")
        now_ms = tx.clock_ms()
        deliveries.retry(tx, delivery_id, due_ms=now_ms)
        endpoints.wake(tx, {endpoint.id: now_ms})
        return _wholes(tx, [_own(tx, tenant, delivery_id)])[0]

    whole = await runtime.door.write(work)
    ring(runtime, [whole.delivery.endpoint_id])
    return whole


def _own(tx: Tx, tenant: str, delivery_id: str) -> Delivery:
    found = deliveries.one(tx, delivery_id)
    if found is None or found.tenant != tenant:
        raise NotFound("there is no such delivery")
    return found


def _wholes(tx: Tx, found: list[Delivery]) -> list[Whole]:
    tries = deliveries.tries_of(tx, [delivery.id for delivery in found])
    return [Whole(delivery, tuple(tries.get(delivery.id, ()))) for delivery in found]
