"""The feed: pages of a tenant's events, waited for on the tail of the stream."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.flows.errors import NotFound
from service.flows.runtime import Runtime
from service.flows.tail import Tail
from service.storage import events, jobs
from service.storage.events import Event

#: So often somebody who waits is asked whether he is still there.
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Page:
    """Events in commit order, and the position behind which to go on."""

    events: list[Event]
    following: int


async def feed(
    tail: Tail,
    *,
    tenant: str,
    after: int | None,
    types: Sequence[str] | None,
    most: int,
    wait_s: float,
    gone: Callable[[], bool] = lambda: False,
) -> Page:
    """This function will read events behind `after`, waiting up to `wait_s` seconds for the first.

    None begins with the oldest event that is kept.

    :raises CursorExpired: if events behind `after` are pruned.
    """
    reader = tail.reader(tenant=tenant, after=after, types=types)
    # Whoever was just answered that something is committed must find it here: the ring may be a moment behind.
    found = await reader.read_stored(most)
    if found or wait_s <= 0:
        return Page(found, reader.position)
    clock = asyncio.get_running_loop().time
    until = clock() + wait_s
    with reader:
        while not found and (left_s := until - clock()) > 0 and not reader.ended and not gone():
            await reader.wait(min(left_s, _LOOK_EVERY_S))
            found = await reader.read(most)
    return Page(found, reader.position)


async def newest(runtime: Runtime) -> int:
    """This function will tell the position from which only what happens from now on is read."""
    return await runtime.door.read(events.latest_seq)


async def require_job(runtime: Runtime, *, tenant: str, job_id: str) -> None:
    """This function will see that a tenant has a job.

    :raises NotFound: if it has no such job.
    """
    stored = (await runtime.door.read(lambda tx: jobs.load(tx, [job_id]))).get(job_id)
    if stored is None or stored.job.tenant != tenant:
        raise NotFound("there is no such job")
