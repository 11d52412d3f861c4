"""The worker: wakes up, sweeps, holds what it works on, gives back what it cannot finish, and outlives failures."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain.effects import Work
from service.domain.job import Job
from service.domain.states import JobState, LearnedBy
from service.flows import submit
from service.flows import work as worker_flow
from service.flows.work import DUTIES
from service.storage import work
from service.storage.postgres import PostgresTx
from tests.paths.flow_scene import Outage, Scene, scene_of


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with scene_of(database_url, tmp_path, monkeypatch) as scene:
        yield scene
        await scene.worker.stop()


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep often, and give up soon."""
    monkeypatch.setattr(worker_flow, "_SWEEP_S", 0.02)
    monkeypatch.setattr(worker_flow, "FINISH_S", 0.3)


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 5) -> None:
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < seconds
        await asyncio.sleep(0.01)


async def reaches(scene: Scene, job: Job, state: JobState) -> None:
    async def holds() -> bool:
        return (await scene.job(job.id)).state is state

    await until(holds)


async def test_a_wake_up_makes_it_quick(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_flow, "_SWEEP_S", 60.0)
    scene.worker.start()
    await asyncio.sleep(0.1)
    job = await scene.accept("bfl")
    await reaches(scene, job, JobState.QUEUED)
    (taken,) = scene.providers.bfl.taken.values()
    scene.providers.bfl.succeed(taken)
    await scene.receive("bfl", taken.token, {}, b"{}")
    await reaches(scene, job, JobState.SUCCEEDED)


@pytest.mark.usefixtures("brisk")
async def test_a_lost_wake_up_costs_a_sweep_and_no_job(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(scene.runtime.bell), "ring", lambda *_, **__: None)
    scene.worker.start()
    job = await scene.accept("bfl")
    await reaches(scene, job, JobState.QUEUED)


@pytest.mark.usefixtures("brisk")
async def test_work_that_fails_is_put_off_and_stops_nothing_else(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, _ = await scene.submitted("fal")
    good, taken = await scene.submitted("fal")
    scene.fal.succeed(taken)
    bad_id = (await scene.attempt(bad.id)).id
    adapter = scene.runtime.providers["fal"]
    real = adapter.ask

    def ask(subject: Any) -> Any:
        if subject.attempt_id == bad_id:
            raise RuntimeError("a bug of ours")
        return real(subject)

    monkeypatch.setattr(adapter, "ask", ask)
    scene.clock.go(20)
    scene.worker.start()
    await reaches(scene, good, JobState.SUCCEEDED)

    async def put_off() -> bool:
        rows = [row for row in await scene.table("work") if row["job_id"] == bad.id]
        return [(row["tries"], row["claim"]) for row in rows] == [(1, None)]

    await until(put_off)
    assert (await scene.work(bad.id))["ask", 1] > 0
    monkeypatch.setattr(adapter, "ask", real)
    for taken in scene.fal.taken.values():
        scene.fal.succeed(taken)
    scene.clock.go(5)
    await reaches(scene, bad, JobState.SUCCEEDED)


@pytest.mark.usefixtures("brisk")
async def test_a_stop_lets_what_is_being_sent_finish(scene: Scene) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.15)
        return scene.fal.accept(request)

    scene.fal.submits.append(slow)
    job = await scene.accept("fal")
    scene.worker.start()
    await reaches(scene, job, JobState.SUBMITTING)
    await scene.worker.stop()
    assert (await scene.job(job.id)).state is JobState.QUEUED


@pytest.mark.usefixtures("brisk")
async def test_a_submit_that_a_stop_interrupts_is_uncertain(scene: Scene) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        scene.fal.take(request)
        await asyncio.sleep(60)
        raise AssertionError

    scene.fal.submits.append(hang)
    job = await scene.accept("fal")
    scene.worker.start()
    await reaches(scene, job, JobState.SUBMITTING)
    await scene.worker.stop()
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN


@pytest.mark.usefixtures("brisk")
async def test_a_stop_between_intent_and_sending_leaves_no_doubt(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has provably not left must not become uncertain by a clean stop."""
    begun = asyncio.Event()
    real = submit.start

    async def start(*args: Any) -> Any:
        started = await real(*args)
        begun.set()
        await asyncio.sleep(0.05)
        return started

    monkeypatch.setattr(submit, "start", start)
    job = await scene.accept("fal")
    scene.worker.start()
    await begun.wait()
    await scene.worker.stop()
    assert (await scene.job(job.id)).state is JobState.QUEUED


@pytest.mark.usefixtures("brisk")
async def test_a_stop_gives_back_what_it_could_not_finish(scene: Scene) -> None:
    job, taken = await scene.submitted("fal")
    asked = asyncio.Event()

    async def hang(request: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.sleep(60)
        raise AssertionError

    scene.runtime.talks["fal"]._client._transport = httpx.MockTransport(hang)  # type: ignore[attr-defined]
    scene.clock.go(20)
    scene.worker.start()
    await asked.wait()
    await scene.worker.stop()
    (row,) = await scene.table("work")
    assert (row["kind"], row["claim"]) == ("ask", None)
    assert row["due_ms"] <= scene.clock.now_ms
    scene.fal.succeed(taken)
    other = scene.changed(process_id="another")
    scene.runtime.talks["fal"]._client._transport = httpx.MockTransport(scene.providers)  # type: ignore[attr-defined]
    await other.settle()
    assert (await scene.job(job.id)).learned_by is LearnedBy.POLL


async def test_what_is_being_worked_on_stays_with_its_process_however_long_it_takes(scene: Scene) -> None:
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        sent.set()
        await go_on.wait()
        return scene.fal.accept(request)

    scene.fal.submits.append(slow)
    job = await scene.accept("fal")
    await scene.worker._turn(DUTIES[0], set())
    await sent.wait()
    other = scene.changed(process_id="another")
    for _ in range(4):
        scene.clock.go(10)
        await scene.worker._renew()
        await other.settle()
    assert (await scene.job(job.id)).state is JobState.SUBMITTING
    go_on.set()
    await asyncio.wait(scene.worker._jobs)
    assert (await scene.job(job.id)).state is JobState.QUEUED
    assert len(scene.fal.sent) == 1


@pytest.mark.parametrize("kind", [Work.ASK, Work.ARCHIVE, Work.CANCEL, Work.RECONCILE])
async def test_what_a_dead_process_had_claimed_is_done_by_another_after_the_lease(
    scene: Scene, kind: Work
) -> None:
    if kind is Work.RECONCILE:
        scene.fal.submits.append(httpx.ReadError("reset"))
    job = await scene.accept("fal")
    await scene.settle()
    if kind is Work.ARCHIVE:
        (taken,) = scene.fal.taken.values()
        scene.fal.succeed(taken)
        await scene.fal_calls(taken)
    if kind is Work.CANCEL:
        await scene.cancel(job.id)
    scene.clock.go(20)
    claimed = await scene.runtime.door.write(
        lambda tx: work.claim(tx, kind=kind, mine="dead", lease_ms=15_000, most=5)
    )
    assert len(claimed) == 1
    before = await scene.work(job.id)
    await scene.after(14.9)
    rows = {row["kind"]: row["claim"] for row in await scene.table("work")}
    assert rows[kind] == "dead"
    await scene.after(0.2)
    assert await scene.work(job.id) != before
    rows = {row["kind"]: row["claim"] for row in await scene.table("work")}
    assert rows.get(kind) is None


async def test_a_worker_with_nothing_to_do_hardly_touches_the_database(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.submitted("fal")
    counted = [0]
    driver = scene.runtime.door._driver
    for name in ("read", "write"):
        real = getattr(driver, name)

        def run(asked: Any, real: Any = real) -> Any:
            counted[0] += 1
            return real(asked)

        monkeypatch.setattr(driver, name, run)
    slow = scene.changed(sleep=asyncio.sleep)
    slow.worker.start()
    await asyncio.sleep(1.2)
    assert 0 < counted[0] < 60
    await slow.worker.stop()


async def test_a_database_clock_behind_ours_does_not_keep_the_worker_spinning(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene_of(postgresql_url, tmp_path, monkeypatch) as scene:
        monkeypatch.setattr(PostgresTx, "clock_ms", lambda _: scene.clock() - 30_000)
        await scene.accept("fal")
        counted = [0]
        driver = scene.runtime.door._driver
        real = driver.write

        def run(works: Any) -> Any:
            counted[0] += 1
            return real(works)

        monkeypatch.setattr(driver, "write", run)
        slow = scene.changed(sleep=asyncio.sleep)
        slow.worker.start()
        await asyncio.sleep(0.8)
        assert 0 < counted[0] < 30
        await slow.worker.stop()


@pytest.mark.usefixtures("brisk")
async def test_an_outage_of_the_database_is_outlived(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(scene, monkeypatch)
    scene.worker.start()
    await asyncio.sleep(0.05)
    first = await scene.accept("bfl")
    outage.gone = True
    await asyncio.sleep(0.3)
    outage.gone = False
    second = await scene.accept("bfl")

    async def go_on() -> bool:
        scene.clock.go(1)
        states = [(await scene.job(job.id)).state for job in (first, second)]
        return all(state in (JobState.QUEUED, JobState.UNCERTAIN) for state in states)

    await until(go_on)
    assert outage.refused > 0
    assert len(scene.providers.bfl.sent) <= 2


async def test_full_hands_do_not_look_like_a_stuck_worker(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_flow, "_SWEEP_S", 0.02)
    monkeypatch.setattr(worker_flow, "FINISH_S", 0.1)
    monkeypatch.setattr(worker_flow, "DUTIES", (worker_flow.Duty(Work.SUBMIT, 1),))

    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    scene.fal.submits.append(hang)
    job = await scene.accept("fal")
    scene.worker.start()
    await reaches(scene, job, JobState.SUBMITTING)
    scene.clock.go(120)

    async def seen() -> bool:
        return scene.worker.seen_ms["submit"] == scene.clock.now_ms

    await until(seen)
