"""What the tests of the client share: a machine whose time does not pass by itself, and answers as the service gives them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from service.client import Fluxgate
from service.client.surroundings import Surroundings
from service.domain.cursors import cursor

BASE = "https://gate.example"
KEY = "a-key-for-the-tests-of-the-client"
JOB_ID = "job_0199"


@dataclass
class Machine:
    """A clock that only sleeping moves, and a list of how long was slept."""

    now_s: float = 1000.0
    naps: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    def surroundings(self) -> Surroundings:
        return Surroundings(
            clock_s=lambda: self.now_s,
            elapsed_s=lambda: self.now_s,
            sleep=self.sleep,
            chance=lambda: 0.5,
            make_key=lambda: "made-key",
        )


def gate(machine: Machine, *, retry_for_s: float = 60.0, http: httpx.AsyncClient | None = None) -> Fluxgate:
    return Fluxgate(BASE, KEY, retry_for_s=retry_for_s, surroundings=machine.surroundings(), http=http)


def job(state: str = "accepted", **fields: Any) -> dict[str, Any]:
    shown = {"id": JOB_ID, "object": "job", "state": state, "output": None, "error": None}
    return {**shown, **fields}


def event(seq: int, type_: str = "job.running", *, state: str = "running", **fields: Any) -> dict[str, Any]:
    shown = {
        "id": f"evt_{seq}",
        "object": "event",
        "seq": seq,
        "type": type_,
        "timestamp": "2026-11-20T12:00:00.000Z",
        "job_id": JOB_ID,
        "job_seq": seq,
        "data": job(state),
    }
    return {**shown, **fields}


def place(seq: int) -> str:
    """Give the cursor behind an event."""
    return cursor("events", seq)


def page(*events: dict[str, Any], following: int) -> httpx.Response:
    return httpx.Response(200, json={"data": list(events), "next_cursor": place(following)})


def frame(shown: dict[str, Any]) -> bytes:
    text = json.dumps(shown, separators=(",", ":"), ensure_ascii=False)
    return f"id: {place(shown['seq'])}\nevent: {shown['type']}\ndata: {text}\n\n".encode()


def problem(
    status: int, code: str, *, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    shown = {"type": "/docs", "title": "No", "status": status, "code": code, "detail": "no", "errors": []}
    return httpx.Response(
        status,
        json={**shown, "request_id": "req_1", **fields},
        headers={"Content-Type": "application/problem+json", **(headers or {})},
    )


def stream(*chunks: bytes | Exception, kind: str = "text/event-stream") -> httpx.Response:
    """Make an answer that says these things one after the other, and breaks where an error stands."""

    async def said(parts: Iterable[bytes | Exception]) -> AsyncIterator[bytes]:
        for part in parts:
            if isinstance(part, Exception):
                raise part
            yield part

    return httpx.Response(200, headers={"Content-Type": kind}, content=said(chunks))
