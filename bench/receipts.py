"""What reached a consumer, and when: raw bytes while it counts, read only once somebody asks for it."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench.numbers import percentiles_ms


@dataclass(frozen=True, slots=True)
class Receipt:
    """One event that arrived whole; times in seconds since the epoch."""

    at: float
    event_id: str
    type: str
    seq: int
    job_id: str | None
    #: The event's own time.
    event_at: float


def receipt(at: float, event: Mapping[str, Any]) -> Receipt:
    """This function will note an event."""
    event_at = datetime.fromisoformat(event["timestamp"]).timestamp()
    return Receipt(at, event["id"], event["type"], event["seq"], event["job_id"], event_at)


def lags(receipts: Iterable[Receipt]) -> dict[str, Any]:
    """This function will sum up how long after their own time the events arrived."""
    took = [each.at - each.event_at for each in receipts]
    return {"count": len(took), "took_ms": percentiles_ms(took)}


async def answer_until_stopped(port: int, answers: Mapping[str, Callable[[], Any]]) -> None:
    """This function will answer `GET /NAME` with what a function gives, as JSON; None is a 503: not yet."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        said = answers[head.split(b" ", 2)[1].decode().removeprefix("/")]()
        status = "503 Service Unavailable" if said is None else "200 OK"
        body = json.dumps(said).encode()
        lines = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(lines.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(one, "127.0.0.1", port) as server:
        await server.serve_forever()
