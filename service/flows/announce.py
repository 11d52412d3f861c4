"""Announce: number the committed events, so that consumers read them in commit order without gaps."""

from service.flows.runtime import Runtime
from service.storage import events

_MOST = 1_000


async def announce(runtime: Runtime) -> int:
    """This function will number what is committed and wake the readers; tells how many events it numbered.

    On SQLite there is nothing to do: the one writer numbers as it writes.
    """
    job_ids = await runtime.door.write(lambda tx: events.number(tx, most=_MOST))
    if job_ids:
        runtime.bell.ring({"feed"})
    return len(job_ids)
