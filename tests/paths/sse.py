"""A reader of server-sent events that keeps everything it was sent, and a service behind a real server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from service.cli.listening import Listener, listening
from tests.paths.visitors import House


@dataclass(frozen=True)
class Told:
    """One event as it came."""

    id: str
    event: str
    data: bytes

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = orjson.loads(self.data)
        return body


@dataclass
class Stream:
    """One open answer, read in the background."""

    response: httpx.Response
    told: list[Told] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    #: Every byte of the body.
    raw: bytearray = field(default_factory=bytearray)
    #: Set when the server ended the stream in order.
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def pump(self) -> None:
        fields: dict[str, bytes] = {}
        rest = b""
        with contextlib.suppress(httpx.TransportError):
            async for piece in self.response.aiter_raw():
                self.raw += piece
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._line(line, fields)
                self._news.set()
            self.ended.set()
        self._news.set()

    def _line(self, line: bytes, fields: dict[str, bytes]) -> None:
        if line.startswith(b":"):
            self.comments.append(line[1:].strip().decode())
        elif line:
            name, _, value = line.partition(b": ")
            fields[name.decode()] = value
        else:
            self.told.append(Told(fields["id"].decode(), fields["event"].decode(), fields["data"]))
            fields.clear()

    async def until(self, count: int, *, within_s: float = 5) -> list[Told]:
        """Wait until so many events have come."""
        await self._until(lambda: len(self.told) >= count, within_s)
        return self.told

    async def until_comment(self, beginning: str, *, count: int = 1, within_s: float = 5) -> None:
        """Wait until so many comments with this beginning have come."""
        await self._until(
            lambda: sum(comment.startswith(beginning) for comment in self.comments) >= count, within_s
        )

    async def until_ended(self, *, within_s: float = 5) -> None:
        async with asyncio.timeout(within_s):
            await self.ended.wait()

    async def _until(self, holds: Any, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while not holds():
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def streaming(
    client: httpx.AsyncClient, path: str = "/v1/events/stream", **request: Any
) -> AsyncIterator[Stream]:
    """Open a stream and read it as long as the context lasts."""
    async with client.stream("GET", path, **request) as response:
        assert response.status_code == 200, await response.aread()
        stream = Stream(response)
        pump = asyncio.create_task(stream.pump())
        try:
            yield stream
        finally:
            pump.cancel()
            await asyncio.wait([pump])


@dataclass(frozen=True)
class Served:
    """A house behind a real server."""

    house: House
    url: str
    clients: contextlib.AsyncExitStack

    async def client(self, **whose: Any) -> httpx.AsyncClient:
        """Make a caller with a key of its own, over real connections."""
        visitor = await self.house.visitor(**whose)
        return await self.clients.enter_async_context(
            httpx.AsyncClient(
                base_url=self.url,
                headers={"Authorization": visitor.headers["authorization"]},
                limits=httpx.Limits(max_connections=None),
                timeout=30,
                trust_env=False,
            )
        )


@contextlib.asynccontextmanager
async def serving(house: House) -> AsyncIterator[Served]:
    """Serve a house on a free port; clients are gone before the server stops."""
    listener = Listener("127.0.0.1", 0)
    async with listening(house.app, listener, house.service), contextlib.AsyncExitStack() as clients:
        yield Served(house, listener.url, clients)
