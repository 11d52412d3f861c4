"""A consumer as a user would write it with the `standardwebhooks` package, on a real socket."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from standardwebhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True)
class Got:
    """One webhook that was believed."""

    id: str
    event: dict[str, Any]

    @property
    def job_id(self) -> str | None:
        job_id: str | None = self.event["job_id"]
        return job_id


@dataclass
class Consumer:
    """Believes only what is signed with one of its secrets, and keeps that."""

    secrets: list[str] = field(default_factory=list)
    port: int = 0
    got: list[Got] = field(default_factory=list)
    #: What it answers with a failure, by the number of the request.
    fails: Callable[[int], bool] = lambda _: False
    #: So long it works on each.
    slow_s: float = 0.0
    asked: int = 0
    forged: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [got.id for got in self.got]

    def in_job_order(self) -> bool:
        """Whether the events of each job came in their order, counting each at its first arrival."""
        seen: set[str] = set()
        last: dict[str | None, int] = defaultdict(int)
        for got in self.got:
            if got.id in seen or got.job_id is None:
                continue
            seen.add(got.id)
            if got.event["job_seq"] <= last[got.job_id]:
                return False
            last[got.job_id] = got.event["job_seq"]
        return True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                pairs = [line.partition(": ")[::2] for line in head.split("\r\n")[1:] if line]
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
                status = await self._answer(headers, body)
                writer.write(b"HTTP/1.1 %d So\r\ncontent-length: 0\r\n\r\n" % status)
        writer.close()

    async def _answer(self, headers: dict[str, str], body: bytes) -> int:
        self.asked += 1
        if self.fails(self.asked):
            return 503
        if not any(_believes(secret, headers, body) for secret in self.secrets):
            self.forged += 1
            return 401
        self.got.append(Got(headers["webhook-id"], orjson.loads(body)["data"]))
        await asyncio.sleep(self.slow_s)
        return 204


def _believes(secret: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        Webhook(secret).verify(body.decode(), headers)
    except WebhookVerificationError:
        return False
    return True


@asynccontextmanager
async def consuming(**how: Any) -> AsyncIterator[Consumer]:
    """Run a consumer."""
    consumer = Consumer(**how)
    server = await asyncio.start_server(consumer.serve, "127.0.0.1", 0)
    consumer.port = server.sockets[0].getsockname()[1]
    async with server:
        yield consumer
