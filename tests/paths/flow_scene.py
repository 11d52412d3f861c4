"""The service's flows on a clock that stands still, with scripted providers: each test moves time by itself."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from service import wiring
from service.domain import exact_json
from service.domain.history import HistoryLine, first_broken
from service.domain.job import Attempt, Job
from service.flows import cancel as cancel_flow
from service.flows import read
from service.flows import retry as retry_flow
from service.flows.accept import Accept, Accepted, Request
from service.flows.advance import Advance
from service.flows.receive import Answered, Receive
from service.flows.runtime import Runtime
from service.flows.work import DUTIES, Worker
from service.storage import events as stored_events
from service.storage import jobs
from service.storage.database import DatabaseUnavailable
from service.storage.events import Event
from service.storage.postgres import PostgresTx
from service.storage.statements import Statement
from service.storage.tables import METADATA
from tests.paths.flow_providers import Fal, Providers, Taken
from tests.paths.visitors import settings

TENANT = "default"
FAL_MODEL = "fal-ai/flux-2-pro"
BFL_MODEL = "flux-2-pro"
#: For variations of what a provider answers: the database has no part in them, and one of them runs on both.
ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PUBLIC_URL = "https://jobs.example"


@dataclass
class Clock:
    """A clock that goes on only when told."""

    now_ms: int = 1_795_000_000_000

    def __call__(self) -> int:
        return self.now_ms

    def go(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


@dataclass
class Scene:
    """One process of the service, not working by itself, and the providers it talks to."""

    runtime: Runtime
    clock: Clock
    providers: Providers
    advance: Advance = field(init=False)
    accepting: Accept = field(init=False)
    receive: Receive = field(init=False)
    worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        self.advance = Advance(self.runtime)
        self.accepting = Accept(self.runtime)
        self.receive = Receive(self.runtime)
        self.worker = Worker(self.runtime, self.advance)

    @property
    def fal(self) -> Fal:
        return self.providers.fal

    def changed(self, **changes: Any) -> "Scene":
        """Give another process on the same database, with something changed."""
        return Scene(replace(self.runtime, **changes), self.clock, self.providers)

    async def accept(self, provider: str = "fal", **changes: Any) -> Job:
        model = FAL_MODEL if provider == "fal" else BFL_MODEL
        given = changes.pop("input", {"prompt": "a fox"})
        request = Request(
            tenant=TENANT,
            cause="api:key_1",
            provider=provider,
            model=changes.pop("model", model),
            input=given,
            input_text=exact_json.dumps(given),
            **changes,
        )
        return (await self.accepting(request)).job

    async def settle(self) -> None:
        """Do what is due now, until nothing is; as the worker does it, but one duty after the other."""
        again = True
        while again:
            await self.worker._expire()
            again = False
            for duty in DUTIES:
                again = bool(await self.worker._turn(duty, set())) or again
                while self.worker._jobs:
                    await asyncio.wait(self.worker._jobs)

    async def after(self, seconds: float) -> None:
        """Let time pass from one due thing to the next, doing each when it is due."""
        until_ms = self.clock.now_ms + int(seconds * 1000)
        await self.settle()
        while self.clock.now_ms < until_ms:
            self.clock.now_ms = min(until_ms, max(self.clock.now_ms, await self.next_ms(until_ms)))
            await self.settle()

    async def next_ms(self, until_ms: int) -> int:
        """When something is due next, a work row or a deadline."""
        rows = await self.table("work")
        dues = [row["due_ms"] for row in rows]
        deadlines = [row["deadline_ms"] for row in await self.table("job") if row["completed_ms"] is None]
        later = [due for due in (*dues, *deadlines) if due > self.clock.now_ms]
        return min(later, default=until_ms)

    async def job(self, job_id: str) -> Job:
        found = await self.runtime.door.read(lambda tx: jobs.load(tx, [job_id]))
        return found[job_id].job

    async def attempt(self, job_id: str) -> Attempt:
        attempt = (await self.job(job_id)).current
        assert attempt is not None
        return attempt

    async def submitted(self, provider: str = "fal", **changes: Any) -> tuple[Job, Taken]:
        """Accept a job and let it be sent."""
        job = await self.accept(provider, **changes)
        await self.settle()
        world = self.providers.fal if provider == "fal" else self.providers.bfl
        return await self.job(job.id), list(world.taken.values())[-1]

    async def fal_calls(self, taken: Taken, *, at_ms: int | None = None, **how: Any) -> Answered:
        """Deliver fal's true callback, or one that differs in `how`."""
        when = self.clock.now_ms if at_ms is None else at_ms
        headers, body = self.fal.callback(taken, now_ms=when, **how)
        return await self.receive("fal", taken.token, headers, body)

    async def bfl_calls(self, taken: Taken, **members: Any) -> Answered:
        headers, body = self.providers.bfl.callback(taken, **members)
        return await self.receive("bfl", taken.token, headers, body)

    async def cancel(self, job_id: str) -> Job:
        return await cancel_flow.cancel(
            self.runtime, self.advance, tenant=TENANT, job_id=job_id, cause="api:key_1"
        )

    async def retry(self, job_id: str) -> Accepted:
        return await retry_flow.retry(
            self.runtime, self.accepting, tenant=TENANT, job_id=job_id, cause="api:key_1"
        )

    async def history(self, job_id: str) -> list[HistoryLine]:
        lines = await read.history_of(self.runtime, tenant=TENANT, job_id=job_id, after=0, most=1000)
        assert first_broken(lines) is None
        return lines

    async def told(self, job_id: str) -> list[tuple[str, bool]]:
        """The history in short: what, and whether it moved the job."""
        return [(line.type, line.moved) for line in await self.history(job_id)]

    async def events(self, job_id: str | None = None) -> list[Event]:
        found = await self.runtime.door.read(
            lambda tx: stored_events.feed(tx, tenant=TENANT, after=0, most=1000)
        )
        return [event for event in found if job_id in (None, event.job_id)]

    async def event_types(self, job_id: str) -> list[str]:
        return [event.type for event in await self.events(job_id)]

    async def callbacks(self, job_id: str) -> list[dict[str, Any]]:
        rows = await read.callbacks_of(self.runtime, tenant=TENANT, job_id=job_id, after="", most=200)
        return [dict(row) for row in rows]

    async def table(self, name: str) -> list[dict[str, Any]]:
        rows = await self.runtime.door.read(lambda tx: tx.rows(Statement(select(METADATA.tables[name]))))
        return [dict(row) for row in rows]

    async def work(self, job_id: str) -> dict[tuple[str, int], int]:
        """What is scheduled for a job: by kind and attempt, in how many milliseconds."""
        rows = [row for row in await self.table("work") if row["job_id"] == job_id]
        return {(row["kind"], row["number"]): row["due_ms"] - self.clock.now_ms for row in rows}


@asynccontextmanager
async def scene_of(
    database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str
) -> AsyncIterator[Scene]:
    """Open the service on a clock that stands still; `more` are settings."""
    clock = Clock()
    monkeypatch.setattr(wiring, "clock_ms", clock)
    # Nothing leaves this process, and loading the machine's certificates takes longer than most tests.
    monkeypatch.setattr(wiring, "tls_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    monkeypatch.setattr(PostgresTx, "clock_ms", lambda _: clock())
    providers = Providers(clock)
    given = {"FLUXGATE_PUBLIC_URL": PUBLIC_URL, "FLUXGATE_POLL_AFTER_S": "20", **more}
    options = settings(database_url, folder, **{name: text for name, text in given.items() if text})
    async with AsyncExitStack() as stack:
        runtime = replace(await wiring._open(stack, options), chance=lambda: 0.5, sleep=_soon)
        for exchange in (*runtime.talks.values(), runtime.downloads):
            await exchange._client.aclose()  # type: ignore[union-attr]
            exchange._client = httpx.AsyncClient(  # type: ignore[union-attr]
                transport=httpx.MockTransport(providers), follow_redirects=False
            )
        yield Scene(runtime, clock, providers)


async def _soon(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.01))


class Outage:
    """Lets the database be away: every transaction fails, or every one after the first few."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self._door = scene.runtime.door
        self._driver = self._door._driver
        self.gone = False
        #: Writes that still work once it is gone.
        self.left = 0
        self.refused = 0
        monkeypatch.setattr(self._driver, "write", self._wrap(self._driver.write))
        monkeypatch.setattr(self._driver, "read", self._wrap(self._driver.read))

    def _wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def run(work: Any) -> Any:
            if self.gone:
                if real.__name__ == "write" and self.left > 0:
                    self.left -= 1
                else:
                    self.refused += 1
                    raise DatabaseUnavailable("it is away")
            return real(work)

        return run
