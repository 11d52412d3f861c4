"""Readers of the stream: `sse` (any number of them) or `feed` (one that asks again and again, waiting).

Usage: python -m bench.readers sse|feed HOW-MANY PORT PORT-TO-ASK TYPES. They begin with what happens from now on;
`/ready` is answered once all are there, then `/count`, `/receipts` and `/lags` tell what came.
"""

import asyncio
import gc
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import astuple
from functools import lru_cache
from typing import Any, cast

import orjson
import uvloop

from bench.gate import API_KEY
from bench.receipts import Receipt, answer_until_stopped, lags, receipt

_AT_ONCE = 50
_DATA = re.compile(rb"^data: (.*)\n\n", re.MULTILINE)
_WAIT_S = 30


def _request(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {API_KEY}\r\naccept: */*\r\n\r\n"
    ).encode()


@lru_cache(maxsize=4096)
def _event(text: bytes) -> Receipt:
    return receipt(0.0, orjson.loads(text))


def _at(at: float, text: bytes) -> Receipt:
    """A thousand readers get the same bytes."""
    event = _event(text)
    return Receipt(at, event.event_id, event.type, event.seq, event.job_id, event.event_at)


class Reader(ABC):
    """Somebody who follows the stream."""

    ready = False
    events = 0

    @abstractmethod
    async def open(self, port: int, types: str) -> None:
        """This function will begin to read."""

    @abstractmethod
    def receipts(self) -> Iterator[Receipt]:
        """This function will read what came."""


class Stream(Reader, asyncio.Protocol):
    """One stream of server-sent events."""

    def __init__(self) -> None:
        self._came: list[tuple[float, bytes]] = []
        self._asking = b""

    async def open(self, port: int, types: str) -> None:
        self._asking = _request(f"/v1/events/stream?after=now&types={types}")
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._asking)

    def data_received(self, data: bytes) -> None:
        self._came.append((time.time(), data))
        if self.ready:
            self.events += data.count(b"\ndata: ")
        elif b": connected" in data:
            self.ready = True

    def connection_lost(self, error: Exception | None) -> None:
        sys.exit(f"the stream ended: {error}, {self._came[-1:]}")

    def receipts(self) -> Iterator[Receipt]:
        """Frames may be cut anywhere: an event has arrived with its last byte."""
        got = b""
        for at, data in self._came:
            got += data
            end = 0
            for found in _DATA.finditer(got):
                yield _at(at, found[1])
                end = found.end()
            got = got[end:]


class Feed(Reader):
    """Long polls on one connection, each behind the last one's cursor."""

    def __init__(self) -> None:
        self._came: list[tuple[float, bytes]] = []
        self._task: asyncio.Task[None] | None = None

    async def open(self, port: int, types: str) -> None:
        self._task = asyncio.create_task(self._follow(port, types))

    async def _follow(self, port: int, types: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        after, wait = "now", 0
        while True:
            path = f"/v1/events?types={types}&limit=100&after={after}&wait={wait}"
            writer.write(_request(path))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b" 200 " not in head[:20]:
                sys.exit(f"the feed: {head.decode()}")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            body = await reader.readexactly(int(length[1]))
            at = time.time()
            page = orjson.loads(body)
            self._came += [(at, orjson.dumps(event)) for event in page["data"]]
            self.events = len(self._came)
            after, wait, self.ready = page["next_cursor"], _WAIT_S, True

    def receipts(self) -> Iterator[Receipt]:
        return (_at(at, text) for at, text in self._came)


async def main(kind: str, count: int, port: int, port_to_ask: int, types: str) -> None:
    """This function will read until SIGTERM."""
    gc.disable()
    readers: list[Reader] = [Stream() if kind == "sse" else Feed() for _ in range(count)]

    def receipts() -> Iterator[Receipt]:
        return (each for reader in readers for each in reader.receipts())

    asks: dict[str, Any] = {
        "ready": lambda: "ready" if all(reader.ready for reader in readers) else None,
        "count": lambda: sum(reader.events for reader in readers),
        "receipts": lambda: [astuple(each) for each in receipts()],
        "lags": lambda: lags(receipts()),
    }
    asking = asyncio.create_task(answer_until_stopped(port_to_ask, asks))
    for start in range(0, count, _AT_ONCE):
        await asyncio.gather(*(reader.open(port, types) for reader in readers[start : start + _AT_ONCE]))
    await asking


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:5]]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], numbers[0], numbers[1], numbers[2], sys.argv[5]))
