"""A wire that can be cut: passes TCP on to a server, which itself knows nothing of the trouble."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults.processes import Port

_CHUNK = 64 * 1024


class Wire:
    """Listens on a port of its own and passes everything on, until it is cut."""

    def __init__(self, target: Path | int, port: Port) -> None:
        self._target = target
        self.port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def mend(self) -> None:
        """Let connections through (again)."""
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port.number)

    async def cut(self) -> None:
        """Break every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def stall(self) -> None:
        """Keep every connection, take new ones, and pass nothing on until it is mended."""
        self._flowing.clear()

    async def _connect(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self._writers.add(near_out)
        with contextlib.suppress(OSError):
            await self._flowing.wait()
            far_in, far_out = await self._open()
            self._writers.add(far_out)
            for source, sink in ((near_in, far_out), (far_in, near_out)):
                task = asyncio.create_task(self._pass_on(source, sink))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        near_out.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection("127.0.0.1", self._target)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(_CHUNK):
                await self._flowing.wait()
                sink.write(piece)
                await sink.drain()
        sink.transport.abort()
        self._writers.discard(sink)


@contextlib.asynccontextmanager
async def wire_to(target: Path | int) -> AsyncIterator[Wire]:
    """Put a wire in front of a server: the path of a Unix socket, or a port of this machine."""
    port = Port()
    wire = Wire(target, port)
    await wire.mend()
    try:
        yield wire
    finally:
        wire._flowing.set()
        await wire.cut()
        port.close()


@contextlib.asynccontextmanager
async def wire_to_database(url: str) -> AsyncIterator[tuple[Wire, str]]:
    """Put a wire in front of a PostgreSQL database that is reached by a Unix socket; give the URL through it."""
    name, _, folder = url.partition("@/")[2].partition("?host=")
    async with wire_to(Path(folder) / ".s.PGSQL.5432") as wire:
        yield wire, f"postgresql://postgres@127.0.0.1:{wire.port.number}/{name}"
