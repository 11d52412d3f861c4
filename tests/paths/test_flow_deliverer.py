"""The deliverer by itself, in real time, over real sockets: quick when woken, sure when not, shared by processes."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service import wiring
from service.flows import deliverer as deliverer_flow
from service.flows import endpoints as endpoint_flow
from service.flows import housekeeping
from service.flows.endpoints import Shown, Wanted
from service.flows.housekeeping import Housekeeper
from service.storage import events
from service.storage.events import Event
from service.wiring import Service
from tests.paths.consumer import Consumer, consuming
from tests.paths.visitors import settings

TENANT = "default"


@asynccontextmanager
async def running(database_url: str, folder: Path) -> AsyncIterator[Service]:
    options = settings(database_url, folder, FLUXGATE_EGRESS_ALLOW="127.0.0.1/32")
    async with wiring.running(options, work=True) as service:
        yield service


async def listening(service: Service, consumer: Consumer) -> Shown:
    shown = await endpoint_flow.create(service.runtime, tenant=TENANT, wanted=Wanted(url=consumer.url))
    consumer.secrets.append(shown.secret)
    return shown


async def tell(service: Service, *jobs: str, ring: bool = True) -> list[Event]:
    told = [
        Event(
            id=service.runtime.make_id("evt"), tenant=TENANT, type="job.accepted", job_id=job, job_seq=1,
            at_ms=service.runtime.now_ms(), data="{}",
        )
        for job in jobs
    ]  # fmt: skip
    await service.runtime.door.write(lambda tx: events.append(tx, told))
    if ring:
        service.runtime.bell.ring({"feed"})
    return told


async def until(holds: Callable[[], bool], seconds: float = 8) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds
        await asyncio.sleep(0.005)
    return time.monotonic() - began


@pytest.mark.parametrize("linger_s", [2.0, 0.0])
async def test_a_wake_up_makes_it_quick(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linger_s: float
) -> None:
    """Also when it comes just as the endpoint is being given back."""
    monkeypatch.setattr(deliverer_flow, "_SWEEP_S", 60.0)
    monkeypatch.setattr(deliverer_flow, "_LINGER_S", linger_s)
    async with consuming() as consumer, running(database_url, tmp_path) as service:
        await listening(service, consumer)
        for number in range(12):
            told = await tell(service, f"job_{number}")
            await until(lambda: len(consumer.got) == number + 1)  # noqa: B023 - called at once
            assert (consumer.got[-1].id, consumer.got[-1].job_id) == (told[0].id, f"job_{number}")


async def test_a_lost_wake_up_costs_a_sweep_and_no_event(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer_flow, "_SWEEP_S", 0.1)
    async with consuming() as consumer, running(database_url, tmp_path) as service:
        await listening(service, consumer)
        monkeypatch.setattr(type(service.runtime.bell), "ring", lambda *_, **__: None)
        told = await tell(service, *(f"job_{number}" for number in range(20)))
        await until(lambda: len(consumer.got) == 20)
        assert set(consumer.ids) == {event.id for event in told}


async def test_what_another_process_tells_is_sent_by_the_one_that_works(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer_flow, "_SWEEP_S", 60.0)
    options = settings(postgresql_url, tmp_path, FLUXGATE_EGRESS_ALLOW="127.0.0.1/32")
    async with (
        consuming() as consumer,
        running(postgresql_url, tmp_path) as service,
        wiring.running(options, work=False) as web,
    ):
        await listening(service, consumer)
        await asyncio.sleep(0.3)
        await tell(web, "job_1")
        await until(lambda: len(consumer.got) == 1)


async def test_processes_share_the_sending_and_no_event_goes_twice(
    postgresql_url: str, tmp_path: Path
) -> None:
    async with (
        consuming() as first,
        consuming() as second,
        running(postgresql_url, tmp_path) as one,
        running(postgresql_url, tmp_path) as two,
    ):
        await listening(one, first)
        await listening(two, second)
        told = []
        for number in range(40):
            told += await tell((one, two)[number % 2], f"job_{number}", f"job_{number}b")
        await until(lambda: len(first.got) >= 80 and len(second.got) >= 80)
        await asyncio.sleep(0.2)
        for consumer in (first, second):
            assert Counter(consumer.ids) == Counter(event.id for event in told)


async def test_the_next_process_goes_on_where_the_last_one_stopped(database_url: str, tmp_path: Path) -> None:
    async with consuming() as consumer:
        told = []
        async with running(database_url, tmp_path) as service:
            await listening(service, consumer)
            told += await tell(service, *(f"job_{number}" for number in range(200)))
            await until(lambda: len(consumer.got) > 20)
        async with running(database_url, tmp_path) as service:
            told += await tell(service, "job_last")
            await until(lambda: len(consumer.got) >= 201)
        assert Counter(consumer.ids) == Counter(event.id for event in told)


async def test_the_hourly_work_prunes_and_sweeps_whatever_fails(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = settings(sqlite_url, tmp_path)
    async with wiring.running(options, work=False) as service:
        left = tmp_path / "artifacts" / "incoming" / "half"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half a file")
        tried: list[str] = []

        async def prune(_: object) -> None:
            tried.append("prune")
            raise RuntimeError("a bug of ours")

        monkeypatch.setattr(housekeeping, "prune", prune)
        housekeeper = Housekeeper(service.runtime)
        await housekeeper.once()
        assert (tried, left.exists()) == (["prune"], True)
        os.utime(left, (0, 0))
        await housekeeper.once()
        assert (tried, left.exists()) == (["prune"] * 2, False)


async def test_hourly_work_does_not_make_a_process_unready(sqlite_url: str, tmp_path: Path) -> None:
    async with running(sqlite_url, tmp_path) as service:
        await until(lambda: service.deliverer is not None and len(service.deliverer.seen_ms) == 3)
        assert service.deliverer is not None
        assert set(service.deliverer.seen_ms) == {"fan_out", "replay", "deliver"}
        assert await wiring.ready(service) == {}
