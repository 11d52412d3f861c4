"""Wake-ups between processes: PostgreSQL's LISTEN and NOTIFY. A lost one costs a second, never a job."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import orjson
import psycopg

from service.storage.database import libpq_url
from service.storage.postgres import TCP_PATIENCE

_CHANNEL = "fluxgate"
#: PostgreSQL refuses payloads of 8000 bytes.
_MAX_PAYLOAD = 7_000
#: Rings are gathered so long, because each NOTIFY is a commit.
_GATHER_S = 0.01
_RETRY_S = 1.0


class Notifier:
    """Passes the rings of this process on to the others, and theirs to this one."""

    def __init__(self, url: str, *, process_id: str, heard: Callable[[Iterable[str]], None]) -> None:
        self._url = libpq_url(url)
        self._process_id = process_id
        self._heard = heard
        self._waiting: set[str] = set()
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """This function will begin to listen and to pass on."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._send())]

    async def stop(self) -> None:
        """This function will end both."""
        pending = set(self._tasks)
        while pending:
            # Again and again: on Python 3.11 a wait inside the driver can swallow a cancellation.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.1)

    def relay(self, topics: set[str]) -> None:
        """This function will pass topics on, gathered with others, soon."""
        self._waiting |= topics
        self._wanted.set()

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(psycopg.Error):
                connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True, **TCP_PATIENCE)
                async with connection:
                    await connection.execute(f"LISTEN {_CHANNEL}")
                    async for notice in connection.notifies():
                        sender, topics = orjson.loads(notice.payload)
                        if sender != self._process_id:
                            self._heard(topics)
            await asyncio.sleep(_RETRY_S)

    async def _send(self) -> None:
        while True:
            with contextlib.suppress(psycopg.Error):
                connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True, **TCP_PATIENCE)
                async with connection:
                    # A wake-up is nothing that must survive a crash.
                    await connection.execute("SET synchronous_commit = off")
                    while True:
                        await self._wanted.wait()
                        await asyncio.sleep(_GATHER_S)
                        await connection.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, self._payload()))
            await asyncio.sleep(_RETRY_S)

    def _payload(self) -> str:
        topics, self._waiting = sorted(self._waiting), set()
        self._wanted.clear()
        text = orjson.dumps([self._process_id, topics]).decode()
        if len(text) <= _MAX_PAYLOAD:
            return text
        # Too many to name: those who wait for a job or an endpoint look by themselves within a second.
        few = [topic for topic in topics if ":" not in topic]
        return orjson.dumps([self._process_id, few]).decode()
