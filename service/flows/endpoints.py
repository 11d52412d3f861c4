"""Endpoints: what a tenant says of the URLs that its events go to.

Rule: a secret leaves this file once, when it is made; at rest it is sealed under a service key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from service.domain import exact_json
from service.domain.endpoint import Disabled, Endpoint, EndpointState, Format, disabled, enabled, moved
from service.domain.endpoint_object import endpoint_object
from service.domain.sealing import seal
from service.flows.errors import Conflict, CursorExpired, NotFound
from service.flows.runtime import Runtime
from service.flows.signing import OVERLAP_MS, drawn_secret
from service.storage import deliveries, endpoints, events, stream
from service.storage.database import Tx
from service.storage.events import Event

#: A tenant has so many, without those of jobs' own URLs: each of its events may go to all of them.
MOST_ENDPOINTS = 100
#: Why what was still to be sent to a disabled endpoint is dead.
BURIED = "the endpoint was disabled"
_REMOVED = "the endpoint was deleted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a caller may choose of an endpoint."""

    url: str
    #: Empty: all types.
    types: tuple[str, ...] = ()
    description: str = ""
    format: Format = Format.STANDARD
    signatures: tuple[str, ...] = ("v1",)
    concurrency: int = 16
    rate_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """An endpoint with the secret that was just made for it."""

    endpoint: Endpoint
    secret: str


async def create(runtime: Runtime, *, tenant: str, wanted: Wanted) -> Shown:
    """This function will make an endpoint; it gets the events that come from now on.

    :raises UrlRefused: if nothing may be sent to its URL.
    :raises Conflict: if the tenant has as many as it may have.
    """
    await runtime.egress.check(wanted.url)
    now_ms, secret, endpoint_id = runtime.now_ms(), drawn_secret(runtime), runtime.make_id("ep")
    endpoint = Endpoint(
        id=endpoint_id,
        tenant=tenant,
        url=wanted.url,
        types=wanted.types,
        description=wanted.description,
        format=wanted.format,
        signatures=wanted.signatures,
        concurrency=wanted.concurrency,
        rate_per_s=wanted.rate_per_s,
        secret=seal(runtime.keys, secret, about=endpoint_id),
        created_ms=now_ms,
        updated_ms=now_ms,
    )
    await runtime.door.write(lambda tx: _insert(tx, endpoint))
    # Who was to hand out events meanwhile has found the row held.
    runtime.bell.ring({"feed"})
    return Shown(endpoint, secret)


def _insert(tx: Tx, endpoint: Endpoint) -> None:
    """Counted by one caller at a time, or two who come together would both be the last."""
    events.hold_fan_out(tx)
    there = endpoints.listed(tx, tenant=endpoint.tenant, before_id=None, most=MOST_ENDPOINTS)
    if len(there) >= MOST_ENDPOINTS:
        raise Conflict(f"a tenant has at most {MOST_ENDPOINTS} endpoints; delete one first")
    endpoints.insert(tx, endpoint)


def own(tx: Tx, tenant: str, endpoint_id: str, *, lock: bool = False) -> Endpoint:
    """This function will find a tenant's endpoint; those made for the URLs of jobs are nobody's to see.

    :raises NotFound: if the tenant has no such endpoint.
    """
    found = endpoints.one(tx, tenant=tenant, endpoint_id=endpoint_id, lock=lock)
    if found is None:
        raise NotFound("there is no such endpoint")
    return found


async def one(runtime: Runtime, *, tenant: str, endpoint_id: str) -> Endpoint:
    """This function will read an endpoint.

    :raises NotFound: if the tenant has no such endpoint.
    """
    return await runtime.door.read(lambda tx: own(tx, tenant, endpoint_id))


async def listed(runtime: Runtime, *, tenant: str, before_id: str | None, most: int) -> list[Endpoint]:
    """This function will list a tenant's endpoints, newest first."""
    return await runtime.door.read(
        lambda tx: endpoints.listed(tx, tenant=tenant, before_id=before_id, most=most)
    )


async def change(runtime: Runtime, *, tenant: str, endpoint_id: str, changes: Mapping[str, Any]) -> Endpoint:
    """This function will change the named fields; `state` may become active, or disabled.

    What was still to be sent to an endpoint that is disabled is dead then. A new URL begins without the failures of
    the old one, and gets what waits at once.

    :raises NotFound: if the tenant has no such endpoint.
    :raises UrlRefused: if nothing may be sent to the new URL.
    """
    if "url" in changes:
        await runtime.egress.check(changes["url"])
    now_ms = runtime.now_ms()

    def work(tx: Tx) -> Endpoint:
        if changes.get("state") is EndpointState.DISABLED:
            events.hold_fan_out(tx)
        before = own(tx, tenant, endpoint_id, lock=True)
        plain = {name: value for name, value in changes.items() if name not in ("state", "url")}
        after = moved(replace(before, **plain), changes.get("url", before.url))
        after = _in_state(after, changes.get("state"))
        if after == before:
            return before
        after = replace(after, updated_ms=now_ms)
        endpoints.save_many(tx, [after])
        begun_anew = (after.url, after.not_before_ms) != (before.url, before.not_before_ms)
        if after.state is not before.state or (begun_anew and after.at_once > 0):
            _follow(tx, after)
        return after

    changed = await runtime.door.write(work)
    ring(runtime, [endpoint_id])
    return changed


def _follow(tx: Tx, endpoint: Endpoint) -> None:
    """What a change of state means for the deliveries: dead, or what was parked goes out now."""
    now_ms = tx.clock_ms()
    if endpoint.state is EndpointState.DISABLED:
        bury(tx, endpoint.id, BURIED, now_ms)
    else:
        deliveries.hasten(tx, endpoint.id, due_ms=now_ms)
        endpoints.wake(tx, {endpoint.id: now_ms})


def bury(tx: Tx, endpoint_id: str, reason: str, now_ms: int) -> None:
    """This function will end all that was still to be sent to an endpoint; the fan-out is held by the caller."""
    while deliveries.bury_pending(tx, endpoint_id, reason=reason, now_ms=now_ms):
        pass


def _in_state(endpoint: Endpoint, state: EndpointState | None) -> Endpoint:
    if state is EndpointState.ACTIVE:
        return enabled(endpoint)
    if state is None or state is endpoint.state:
        return endpoint
    return disabled(endpoint, Disabled.OPERATOR)


async def remove(runtime: Runtime, *, tenant: str, endpoint_id: str) -> None:
    """This function will end an endpoint for good; what was still to be sent to it is not sent.

    :raises NotFound: if the tenant has no such endpoint.
    """

    def work(tx: Tx) -> None:
        events.hold_fan_out(tx)
        own(tx, tenant, endpoint_id, lock=True)
        bury(tx, endpoint_id, _REMOVED, tx.clock_ms())
        endpoints.remove(tx, endpoint_id)

    await runtime.door.write(work)
    ring(runtime, [endpoint_id])


async def rotate(runtime: Runtime, *, tenant: str, endpoint_id: str) -> Shown:
    """This function will make a new secret; the one before it signs too for 24 h.

    :raises NotFound: if the tenant has no such endpoint.
    """
    secret, now_ms = drawn_secret(runtime), runtime.now_ms()
    sealed = seal(runtime.keys, secret, about=endpoint_id)

    def work(tx: Tx) -> Endpoint:
        before = own(tx, tenant, endpoint_id, lock=True)
        after = replace(
            before,
            secret=sealed,
            previous_secret=before.secret,
            previous_until_ms=now_ms + OVERLAP_MS,
            updated_ms=now_ms,
        )
        endpoints.save_many(tx, [after])
        return after

    rotated = await runtime.door.write(work)
    ring(runtime, [endpoint_id])
    return Shown(rotated, secret)


async def test(runtime: Runtime, *, tenant: str, endpoint_id: str) -> str:
    """This function will send an event `endpoint.test` to this endpoint alone; tells the event's id.

    :raises NotFound: if the tenant has no such endpoint.
    :raises Conflict: if it is disabled.
    """

    def work(tx: Tx) -> str:
        endpoint = own(tx, tenant, endpoint_id)
        _refuse_disabled(endpoint)
        event = event_about(runtime, endpoint, "endpoint.test")
        events.append(tx, [event])
        return event.id

    event_id = await runtime.door.write(work)
    runtime.bell.ring({"feed"})
    return event_id


def event_about(runtime: Runtime, endpoint: Endpoint, type_: str) -> Event:
    """This function will make an event about an endpoint."""
    return Event(
        id=runtime.make_id("evt"),
        tenant=endpoint.tenant,
        type=type_,
        job_id=None,
        job_seq=None,
        at_ms=runtime.now_ms(),
        data=exact_json.dumps(endpoint_object(endpoint)),
    )


async def replay(runtime: Runtime, *, tenant: str, endpoint_id: str, after: int | None) -> Endpoint:
    """This function will send again, under the same ids, what came after a `seq` of the stream until now.

    Without `after` it begins with the oldest event that is kept.

    :raises NotFound: if the tenant has no such endpoint.
    :raises Conflict: if it is disabled, or an earlier replay has not ended.
    :raises CursorExpired: if events behind the cursor are no longer kept.
    """

    def work(tx: Tx) -> Endpoint:
        before = own(tx, tenant, endpoint_id, lock=True)
        _refuse_disabled(before)
        if before.replay_until is not None:
            raise Conflict("an earlier replay of this endpoint has not ended")
        stream.hold_pruning(tx)
        pruned = stream.pruned_seq(tx, tenant)
        if after is not None and after < pruned:
            raise CursorExpired(pruned)
        changed = replace(
            before,
            replay_after=pruned if after is None else after,
            # What is newer than this has not been handed out yet, and comes by itself.
            replay_until=events.fan_out_cursor(tx),
            updated_ms=runtime.now_ms(),
        )
        endpoints.save_many(tx, [changed])
        return changed

    replaying = await runtime.door.write(work)
    runtime.bell.ring({"replay"})
    return replaying


def _refuse_disabled(endpoint: Endpoint) -> None:
    if endpoint.state is EndpointState.DISABLED:
        raise Conflict("the endpoint is disabled; make it active first")


def ring(runtime: Runtime, endpoint_ids: list[str]) -> None:
    """This function will wake who sends to these endpoints, in any process."""
    runtime.bell.ring({"deliver", *(f"endpoint:{endpoint_id}" for endpoint_id in endpoint_ids)})
