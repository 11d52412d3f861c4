"""Observe: what stands in the database at this moment, for operators."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.flows.runtime import Runtime
from service.storage import search, work
from service.storage.database import Tx


@dataclass(frozen=True, slots=True)
class Standing:
    """Jobs that are not final by provider and state, and by kind of work how much waits and how much is due."""

    open_jobs: Mapping[tuple[str, str], int]
    work: Mapping[str, tuple[int, int]]


async def standing(runtime: Runtime) -> Standing:
    """This function will count open jobs and work.

    :raises DatabaseUnavailable: if the database is gone.
    """
    now_ms = runtime.now_ms()

    def look(tx: Tx) -> Standing:
        return Standing(search.open_by_state(tx), work.counts(tx, now_ms=now_ms))

    return await runtime.door.read(look)
