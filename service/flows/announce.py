"""Announce: number the committed events, so that consumers read them in commit order without gaps."""

from service.flows.runtime import Runtime
from service.storage import events

#: So many at a time, so that the lock under which events are numbered is held shortly.
MOST = 1_000


async def announce(runtime: Runtime) -> int:
    """This function will number what is committed and wake the readers; tells how many events it numbered.

    On SQLite there is nothing to do: the one writer numbers as it writes.
    """
    numbered = await runtime.door.write(lambda tx: events.number(tx, most=MOST))
    if numbered:
        runtime.bell.ring({"feed"})
    return numbered
