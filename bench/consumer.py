"""A consumer of webhooks that is as quick as Python allows: it notes when what came, and answers 204.

Usage: python -m bench.consumer PORT PORT-TO-ASK. What came is told on the second port: `/count`, `/receipts` and
`/sample`, which is the first webhook as it came.
"""

import asyncio
import gc
import sys
import time
from dataclasses import astuple
from typing import Any, cast

import orjson
import uvloop

from bench.receipts import answer_until_stopped, receipt

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_LENGTH = b"content-length:"

_came: list[tuple[float, bytes]] = []


class Consumer(asyncio.Protocol):
    """One connection of whoever delivers; one request at a time."""

    def __init__(self) -> None:
        self._got = b""
        self._whole = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods, but not the type.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        got = self._got = self._got + data if self._got else data
        if not self._whole:
            end = got.find(b"\r\n\r\n")
            if end < 0:
                return
            head = got[:end].lower()
            at = head.index(_LENGTH) + len(_LENGTH)
            stop = head.find(b"\r", at)
            self._whole = end + 4 + int(head[at : stop if stop > 0 else end])
        if len(got) >= self._whole:
            _came.append((time.time(), got))
            self._got, self._whole = b"", 0
            assert self._transport is not None
            self._transport.write(_ANSWER)


def _receipts() -> list[Any]:
    bodies = ((at, orjson.loads(got[got.index(b"\r\n\r\n") + 4 :])) for at, got in _came)
    return [astuple(receipt(at, body["data"])) for at, body in bodies]


def _sample() -> dict[str, Any] | None:
    if not _came:
        return None
    head, _, body = _came[0][1].decode("latin-1").partition("\r\n\r\n")
    lines = (line.partition(":") for line in head.split("\r\n")[1:])
    return {"headers": {name.lower(): value.strip() for name, _, value in lines}, "body": body}


def _forget() -> str:
    _came.clear()
    return "forgotten"


async def main(port: int, port_to_ask: int) -> None:
    """This function will consume until SIGTERM."""
    # So that no pause of ours counts as somebody's lag; what is kept are bytes.
    gc.disable()
    asks = {"count": lambda: len(_came), "receipts": _receipts, "sample": _sample, "forget": _forget}
    async with await asyncio.get_running_loop().create_server(Consumer, "127.0.0.1", port, backlog=1024):
        await answer_until_stopped(port_to_ask, asks)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2])))
