"""Prune: what has been kept for its time goes, in small batches, so that nobody waits for it.

Events and deliveries have a time each (settings); an event that somebody has still to be told stays whatever its age.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from service.flows.runtime import Runtime
from service.storage import endpoints, retention

#: So many rows in one transaction, and a pause before the next one: on SQLite every other write waits meanwhile.
MOST = 500
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows are gone."""

    events: int
    deliveries: int
    #: Those made for jobs' own URLs that no delivery is kept of any more.
    endpoints: int = 0


async def prune(runtime: Runtime) -> Pruned:
    """This function will delete events and finished deliveries that are older than they are kept.

    Any number of processes may do this at the same time.

    :raises DatabaseUnavailable: if the database is gone; what is left is for the next time.
    """
    return Pruned(
        events=await _events(runtime),
        deliveries=await _walk(runtime, retention.prune_deliveries),
        endpoints=await _walk(runtime, endpoints.prune_for_jobs),
    )


async def _events(runtime: Runtime) -> int:
    before_ms = runtime.now_ms() - runtime.timing.keep_events_ms
    pruned = 0
    while True:
        gone = await runtime.door.write(lambda tx: retention.prune_events(tx, before_ms=before_ms, most=MOST))
        pruned += gone
        if gone < MOST:
            return pruned
        await runtime.sleep(_PAUSE_S)


async def _walk(runtime: Runtime, some: Callable[..., tuple[int, str | None]]) -> int:
    """From the oldest on, a few at a time, up to those that are too young."""
    before_ms = runtime.now_ms() - runtime.timing.keep_deliveries_ms
    pruned, after_id = 0, ""
    while True:
        gone, following = await runtime.door.write(
            partial(some, after_id=after_id, before_ms=before_ms, most=MOST)
        )
        pruned += gone
        if following is None:
            return pruned
        after_id = following
        await runtime.sleep(_PAUSE_S)
