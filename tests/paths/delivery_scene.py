"""Deliveries on a clock that stands still, to consumers that answer as a script says."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook

from service.domain.endpoint import Delivery, Endpoint
from service.egress import Answered, UrlRefused
from service.flows import deliverer as deliverer_flow
from service.flows import deliveries as delivery_flow
from service.flows import endpoints as endpoint_flow
from service.flows.deliverer import Deliverer
from service.flows.endpoints import Shown, Wanted
from service.storage import deliveries, endpoints, events
from service.storage.deliveries import Filters
from service.storage.events import Event
from tests.paths.flow_scene import TENANT, Scene, scene_of

#: A job's life as most are.
LIFE = ("job.accepted", "job.submitted", "job.succeeded")


@dataclass(frozen=True)
class Received:
    """One request that reached a consumer, at the time of the scene's clock."""

    url: str
    headers: dict[str, str]
    body: bytes
    at_ms: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return orjson.loads(self.body)["data"]


#: A status, a whole answer, something to raise, or what awaits one of these.
Answer = int | Answered | Exception
Script = Callable[[Received], Answer | Awaitable[Answer]]


def answered(status: int, body: bytes = b"", **headers: str) -> Answered:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answered(status=status, headers=named, body=body, took_ms=1)


@dataclass
class Consumers:
    """The way out, with a script behind each URL; without one a consumer answers 204."""

    clock: Callable[[], int]
    scripts: dict[str, Script] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    #: On their way at the same time, and the most there ever were, by URL.
    busy: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    busiest: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    refused: set[str] = field(default_factory=set)

    async def check(self, url: str) -> None:
        if url in self.refused:
            raise UrlRefused("must not lead to an address that is private")

    async def post(self, url: str, *, headers: dict[str, str], body: bytes, **_: Any) -> Answered:
        await self.check(url)
        received = Received(url, dict(headers), body, self.clock())
        self.received.append(received)
        self.busy[url] += 1
        self.busiest[url] = max(self.busiest[url], self.busy[url])
        try:
            await asyncio.sleep(0)
            came = self.scripts.get(url, lambda _: 204)(received)
            answer = came if isinstance(came, int | Answered | Exception) else await came
        finally:
            self.busy[url] -= 1
        if isinstance(answer, Exception):
            raise answer
        return answered(answer) if isinstance(answer, int) else answer

    async def aclose(self) -> None:
        pass

    def at(self, url: str) -> list[Received]:
        return [received for received in self.received if received.url == url]

    def ids(self, url: str) -> list[str]:
        return [received.id for received in self.at(url)]


@dataclass
class DeliveryScene:
    """One process that sends by itself only when told, and its consumers."""

    scene: Scene
    consumers: Consumers
    deliverer: Deliverer = field(init=False)

    def __post_init__(self) -> None:
        self.deliverer = Deliverer(self.runtime)

    @property
    def runtime(self) -> Any:
        return self.scene.runtime

    @property
    def clock(self) -> Any:
        return self.scene.clock

    def another(self) -> "DeliveryScene":
        """Give another process on the same database."""
        return DeliveryScene(self.scene.changed(process_id="other"), self.consumers)

    async def endpoint(self, url: str = "https://one.example/hook", **wanted: Any) -> Shown:
        return await endpoint_flow.create(self.runtime, tenant=TENANT, wanted=Wanted(url=url, **wanted))

    async def tell(self, *jobs: str, types: Sequence[str] = LIFE, tenant: str = TENANT) -> list[Event]:
        """Write the events of jobs, those of one kind for all jobs before those of the next."""
        told = [
            Event(
                id=self.runtime.make_id("evt"),
                tenant=tenant,
                type=type_,
                job_id=job,
                job_seq=number,
                at_ms=self.clock(),
                data=orjson.dumps({"id": job, "state": type_}).decode(),
            )
            for number, type_ in enumerate(types, 1)
            for job in jobs
        ]
        await self.runtime.door.write(lambda tx: events.append(tx, told))
        return told

    async def hand_out(self) -> None:
        while await self.deliverer.hand_out() or await self.deliverer.hand_out_again():
            pass

    async def settle(self) -> None:
        """Hand out and send what is due now, until nothing is."""
        while True:
            await self.hand_out()
            await self.deliverer.turn()
            if not self.deliverer._tasks:
                return
            while self.deliverer._tasks:
                await asyncio.wait(self.deliverer._tasks)

    async def after(self, seconds: float) -> None:
        """Let time pass from one due endpoint to the next."""
        until_ms = self.clock() + int(seconds * 1000)
        await self.settle()
        while self.clock() < until_ms:
            due_ms = await self.runtime.door.read(endpoints.next_due_ms)
            self.clock.now_ms = until_ms if due_ms is None else min(until_ms, max(self.clock() + 1, due_ms))
            await self.settle()

    async def state(self, shown: Shown | str) -> Endpoint:
        endpoint_id = shown if isinstance(shown, str) else shown.endpoint.id
        found = await self.runtime.door.read(lambda tx: endpoints.load(tx, [endpoint_id]))
        endpoint: Endpoint = found[endpoint_id]
        return endpoint

    async def deliveries(self, **filters: Any) -> list[Delivery]:
        """All deliveries that fit, oldest first."""
        found: list[Delivery] = await self.runtime.door.read(
            lambda tx: deliveries.listed(
                tx, tenant=TENANT, filters=Filters(**filters), before_id=None, most=10_000
            )
        )
        return sorted(found, key=lambda each: (each.event_seq, each.id))

    async def tries(self, delivery_id: str) -> Any:
        return (await delivery_flow.one(self.runtime, tenant=TENANT, delivery_id=delivery_id)).tries


def verified(received: Received, *secrets: str) -> bool:
    """Whether a consumer that knows one of the secrets believes what it got, whenever that was."""
    at = datetime.fromtimestamp(int(received.headers["webhook-timestamp"]), UTC)
    entries = received.headers["webhook-signature"].split()
    return any(Webhook(secret).sign(received.id, at, received.body.decode()) in entries for secret in secrets)


def in_job_order(received: Sequence[Received]) -> bool:
    """Whether the events of each job came in their order, counting each at its first arrival."""
    seen: set[str] = set()
    last: dict[str, int] = defaultdict(int)
    for each in received:
        if each.id in seen:
            continue
        seen.add(each.id)
        job, number = each.event["job_id"], each.event["job_seq"]
        if job is not None and number <= last[job]:
            return False
        last[job] = number
    return True


@asynccontextmanager
async def deliveries_of(
    database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str
) -> AsyncIterator[DeliveryScene]:
    """Open the service on a clock that stands still; what nobody waits for is not waited for either."""
    monkeypatch.setattr(deliverer_flow, "_LINGER_S", 0.0)
    async with scene_of(database_url, folder, monkeypatch, **more) as scene:
        consumers = Consumers(scene.clock)
        runtime = replace(scene.runtime, egress=consumers)
        yield DeliveryScene(Scene(runtime, scene.clock, scene.providers), consumers)
