"""Fan out: decide for each event which endpoints get it, exactly once.

Rule 1: one cursor for the whole service. Its row is locked while events behind it are read, and it moves in the
transaction that writes their deliveries: whoever crashes, on however many processes, each event is handed out once.
Rule 2: when nobody listens it costs next to nothing: nothing is written but the cursor.
Rule 3: a replay is the same for one endpoint between two places of the stream: what was delivered is sent again.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from service.domain.endpoint import Delivery, Endpoint, EndpointState, enabled
from service.domain.sealing import seal
from service.flows.runtime import Runtime
from service.flows.signing import drawn_secret, tenant_of
from service.storage import deliveries, endpoints, events, tenant_secrets
from service.storage.database import Tx
from service.storage.events import Event, Passing

#: So many events at a time, so that the cursor is locked shortly.
MOST = 500


@dataclass(frozen=True, slots=True)
class HandedOut:
    """What one round did: how many events it passed, and which endpoints have something to send now."""

    events: int = 0
    endpoint_ids: tuple[str, ...] = ()
    #: Whether there was anybody who might have wanted them.
    somebody: bool = True


async def fan_out(runtime: Runtime, now_ms: int | None = None) -> HandedOut:
    """This function will hand out the next events; none when another process is at it or nothing is new.

    `now_ms` is the database's time, for who knows it already.
    """
    return await runtime.door.write(lambda tx: _round(tx, runtime, now_ms))


def _round(tx: Tx, runtime: Runtime, now_ms: int | None) -> HandedOut:
    cursor = events.fan_out_cursor(tx, lock=True)
    passing = [] if cursor is None else events.after(tx, cursor, most=MOST)
    if not passing:
        return HandedOut()
    now_ms = tx.clock_ms() if now_ms is None else now_ms
    listening: defaultdict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints.active_of(tx, sorted({event.tenant for event in passing})):
        listening[endpoint.tenant].append(endpoint)
    own = _of_jobs(tx, runtime, passing, now_ms)
    handed = [
        _delivery(runtime, endpoint, event, now_ms)
        for event in passing
        for endpoint in (*_listeners(event, listening[event.tenant]), *own.get(event.seq, ()))
    ]
    woken = {delivery.endpoint_id: now_ms for delivery in handed}
    deliveries.insert(tx, handed)
    endpoints.wake(tx, woken)
    events.move_fan_out(tx, passing[-1].seq)
    return HandedOut(len(passing), tuple(woken), somebody=bool(own) or any(listening.values()))


def _listeners(event: Event, listening: Sequence[Endpoint]) -> list[Endpoint]:
    """A test goes to the endpoint that is tested, the end of an endpoint to all others."""
    if event.job_id is None:
        about = orjson.loads(event.data)["id"]
        if event.type == "endpoint.test":
            return [endpoint for endpoint in listening if endpoint.id == about]
        listening = [endpoint for endpoint in listening if endpoint.id != about]
    return [endpoint for endpoint in listening if endpoint.wants(event.type)]


def _of_jobs(tx: Tx, runtime: Runtime, passing: Sequence[Passing], now_ms: int) -> dict[int, list[Endpoint]]:
    """The endpoints of the jobs' own URLs, by event."""
    named = {(event.tenant, event.webhook_url) for event in passing if event.webhook_url is not None}
    if not named:
        return {}
    for tenant in sorted({tenant for tenant, _ in named}):
        if tenant_secrets.one(tx, tenant) is None:
            sealed = seal(runtime.keys, drawn_secret(runtime), about=tenant_of(tenant))
            tenant_secrets.ensure(tx, tenant=tenant, sealed=sealed, now_ms=now_ms)
    found = endpoints.ensure_for_jobs(
        tx,
        [
            Endpoint(
                id=runtime.make_id("ep"),
                tenant=tenant,
                url=url,
                for_jobs=True,
                created_ms=now_ms,
                updated_ms=now_ms,
            )
            for tenant, url in sorted(named)
        ],
    )
    _enable_again(tx, found, passing)
    return {
        event.seq: [endpoint]
        for event in passing
        if event.webhook_url is not None
        and (endpoint := found[event.tenant, event.webhook_url]).state is not EndpointState.DISABLED
    }


def _enable_again(tx: Tx, found: dict[tuple[str, str], Endpoint], passing: Sequence[Passing]) -> None:
    """Nobody can enable the endpoint of a job's URL by hand: a new job that names the URL does."""
    for event in passing:
        if event.type != "job.accepted" or event.webhook_url is None:
            continue
        endpoint = found[event.tenant, event.webhook_url]
        if endpoint.state is EndpointState.DISABLED:
            found[event.tenant, event.webhook_url] = enabled(endpoint)
            endpoints.save_many(tx, [found[event.tenant, event.webhook_url]])


def _delivery(runtime: Runtime, endpoint: Endpoint, event: Event, now_ms: int) -> Delivery:
    return Delivery(
        id=runtime.make_id("dlv"),
        tenant=event.tenant,
        endpoint_id=endpoint.id,
        event_id=event.id,
        event_seq=event.seq,
        event_type=event.type,
        job_id=event.job_id,
        created_ms=now_ms,
        next_ms=now_ms,
    )


async def replay(runtime: Runtime) -> HandedOut:
    """This function will go one step on with one endpoint's replay, if there is any."""
    return await runtime.door.write(lambda tx: _replay_round(tx, runtime))


def _replay_round(tx: Tx, runtime: Runtime) -> HandedOut:
    found = endpoints.replaying(tx, most=1)
    endpoint = next(iter(endpoints.load(tx, [each.id for each in found], lock=True).values()), None)
    if endpoint is None or endpoint.replay_after is None or endpoint.replay_until is None:
        return HandedOut()
    read = events.feed(tx, tenant=endpoint.tenant, after=endpoint.replay_after, most=MOST)
    passing = [event for event in read if event.seq <= endpoint.replay_until]
    now_ms = tx.clock_ms()
    deliveries.reopen(
        tx,
        [_delivery(runtime, endpoint, event, now_ms) for event in passing if _listeners(event, [endpoint])],
    )
    if len(passing) < MOST:
        moved = replace(endpoint, replay_after=None, replay_until=None)
    else:
        moved = replace(endpoint, replay_after=passing[-1].seq)
    endpoints.save_many(tx, [moved])
    endpoints.wake(tx, {endpoint.id: now_ms})
    return HandedOut(max(len(passing), 1), (endpoint.id,))
