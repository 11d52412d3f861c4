"""Proxies as they stand between programs and services: one collects what should flow, one cuts it, one shreds it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_CHUNK = 64 * 1024


@dataclass
class Proxy:
    """Passes one request a connection on; `streams` says what becomes of answers to paths that end in /stream.

    `collect`: nothing is passed on before the answer is complete, which a stream never is. A number: the connection
    breaks after so many bytes. `shred`: bytes are passed on one by one.
    """

    port: int
    streams: str | int
    url: str = ""
    opened: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._pass_on(reader, writer)
        finally:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        body = await reader.readexactly(size)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            far_writer.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
            is_stream = head.split(b" ")[1].partition(b"?")[0].endswith(b"/stream")
            self.opened += is_stream
            await self._answer(far_reader, writer, self.streams if is_stream else "")
        finally:
            far_writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, how: str | int
    ) -> None:
        if how == "collect":
            writer.write(await reader.read())
            await writer.drain()
            return
        passed = 0
        while piece := await reader.read(_CHUNK):
            if isinstance(how, int):
                piece = piece[: how - passed]
                passed += len(piece)
            for part in [piece[at : at + 1] for at in range(len(piece))] if how == "shred" else [piece]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if how == passed:
                return

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@contextlib.asynccontextmanager
async def proxy_to(port: int, streams: str | int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port, streams)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
