"""A database with events, and processes that publish them: here, or in a process of their own that dies on purpose.

`python -m tests.sinks.publishing <database url> <sink as JSON> <publishes>` publishes so often and then kills itself
between the broker's confirmation and the cursor's commit.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.flows.runtime import Timing
from service.flows.sink import Publisher
from service.sinks.base import Message, Sink, Tail
from service.sinks.registry import SinkSettings, build
from service.storage import events
from service.storage.events import Event
from tests.storage.world import Process, process

#: Short, so that a test need not wait long for what a dead process had claimed.
LEASE_MS = 600


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


def made(first: int, last: int, **fields: Any) -> list[Event]:
    """Make events; five jobs take turns."""
    return [
        Event(
            **{
                "id": f"evt_{number:06d}",
                "tenant": "default",
                "type": "job.running",
                "job_id": f"job_{number % 5}",
                "job_seq": number,
                "at_ms": wall_clock(),
                "data": f'{{"number":{number},"prompt":"ключ"}}',
                **fields,
            }
        )
        for number in range(first, last + 1)
    ]


async def write(one: Process, first: int, last: int, **fields: Any) -> None:
    told = made(first, last, **fields)
    await one.door.write(lambda tx: events.append(tx, told))


def publisher_of(one: Process, sink: Sink) -> Publisher:
    return Publisher(replace(one.runtime, timing=Timing(lease_ms=LEASE_MS)), sink)


async def published(publisher: Publisher, until: Callable[[], bool], within_s: float = 30) -> None:
    """Take turns, as the tasks of a working process do, until the test has seen enough."""
    async with asyncio.timeout(within_s):
        while not until():
            wait_s = await publisher.turn()
            await publisher.renew()
            await asyncio.sleep(min(wait_s, 0.05))


def up_to(publisher: Publisher, seq: int) -> Callable[[], bool]:
    return lambda: publisher._cursor >= seq


class Deadly:
    """A sink after whose so-manieth confirmation the process is killed."""

    def __init__(self, sink: Sink, publishes: int) -> None:
        self.name = sink.name
        self._sink = sink
        self._left = publishes

    async def open(self) -> Tail | None:
        return await self._sink.open()

    async def publish(self, messages: Sequence[Message], *, after: int) -> int:
        taken = await self._sink.publish(messages, after=after)
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        return taken

    async def close(self) -> None:
        await self._sink.close()


async def main(url: str, settings: dict[str, str], publishes: int) -> None:
    [sink] = build(SinkSettings(**settings))
    folder = Path(tempfile.gettempdir())
    async with process(url, folder, clock=wall_clock, name="deadly") as one:  # type: ignore[arg-type]
        publisher = publisher_of(one, Deadly(sink, publishes))
        while True:
            await publisher.turn()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])))
