"""Observe: what stands in the database at this moment, for operators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.flows.runtime import Runtime
from service.storage import search, sinks, work
from service.storage.database import Tx
from service.storage.sinks import Standing as SinkStanding


@dataclass(frozen=True, slots=True)
class Standing:
    """Jobs that are not final by provider and state, and by kind of work how much waits and how much is due.

    With each broker sink of this installation: how far behind it is, and what is wrong with it.
    """

    open_jobs: Mapping[tuple[str, str], int]
    work: Mapping[str, tuple[int, int]]
    sinks: Sequence[SinkStanding] = ()


async def standing(runtime: Runtime, *, sink_names: Sequence[str] = ()) -> Standing:
    """This function will count open jobs and work, and see where the broker sinks stand.

    :raises DatabaseUnavailable: if the database is gone.
    """
    now_ms = runtime.now_ms()

    def look(tx: Tx) -> Standing:
        return Standing(
            search.open_by_state(tx), work.counts(tx, now_ms=now_ms), sinks.standing(tx, sink_names)
        )

    return await runtime.door.read(look)
