"""SIGTERM and SIGINT in the middle of things: exit 0 within 10 s, what is unfinished is left in order."""

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from service.simulator.app import Simulator
from service.storage import jobs as stored_jobs
from service.storage.drivers import open_driver
from tests.cli.process import STOPS_WITHIN_S
from tests.faults.callers import is_final, is_settled, submit_many, until, until_jobs
from tests.faults.ledger import everything_holds
from tests.faults.processes import simulated, site
from tests.faults.proxy import wire_to_database

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


#: Logged where the process did not end by itself.
BY_FORCE = "ended_without_waiting"


def _hanging(simulator: Simulator) -> int:
    tally = simulator.world.tally
    return sum(tally.get(name, "requests.submit_fates.submit_hanging") for name in ("fal", "bfl"))


async def _some_hang(simulator: Simulator, count: int) -> None:
    async def enough() -> bool:
        return _hanging(simulator) >= count

    await until(enough, within_s=15, every_s=0.02, saying="submits hang")


@pytest.mark.parametrize(
    ("database", "number", "hang_ms"),
    [("sqlite", signal.SIGTERM, 60_000), ("postgresql", signal.SIGINT, 3_000)],
    ids=["longer-than-we-wait", "shorter"],
)
async def test_a_signal_in_the_middle_of_submits_leaves_them_recorded_or_uncertain(
    database: str, number: signal.Signals, hang_ms: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(f"{database}_url")
    async with (
        simulated(f"submit_timeout=0.5,hang_ms={hang_ms},retry_scale=0.2", seed=2) as simulator,
        site(url, tmp_path, provider_url=simulator.url) as there,
    ):
        process = await there.serve()
        prompts = await submit_many(there.http, 20)
        await _some_hang(simulator, 3)
        code, seconds = await process.stop(number)
        assert (code, seconds < STOPS_WITHIN_S) == (0, True), (code, seconds)
        assert "Traceback" not in process.log
        assert BY_FORCE not in process.log
        assert _states(url, prompts) <= {"uncertain", "queued", "running", "succeeded"}
        simulator.set_faults(submit_timeout=0)
        await there.serve()
        await until_jobs(there.http, is_settled, within_s=15)
        # Fal repeats its callbacks long enough to be heard by the next process, whatever became of the submit.
        await until_jobs(there.http, lambda job: is_final(job) or job["provider"] == "bfl", within_s=15)
        jobs = await everything_holds(there.http, database_url=url, simulator=simulator, prompts=prompts)
        assert {len(job["attempts"]) for job in jobs.values()} == {1}
        assert len(simulator.requests()) == 20


def _states(url: str, prompts: Mapping[str, str]) -> set[str]:
    """Read what a process left behind, before the next one sees it."""
    driver = open_driver(url, lambda: 0)
    try:
        found = driver.read(lambda tx: stored_jobs.load(tx, list(prompts)))
    finally:
        driver.close()
    return {stored.job.state.value for stored in found.values()}


async def test_a_signal_while_the_database_is_away_ends_the_process_all_the_same(
    postgresql_url: str, tmp_path: Path
) -> None:
    async with (
        simulated("submit_timeout=0.5,hang_ms=60000,retry_scale=0.2", seed=2) as simulator,
        wire_to_database(postgresql_url) as (wire, url),
        site(url, tmp_path, provider_url=simulator.url, FLUXGATE_UNCERTAIN_S="1") as there,
    ):
        process = await there.serve()
        prompts = await submit_many(there.http, 10, on_uncertain="resubmit")
        await _some_hang(simulator, 2)
        await wire.cut()
        code, seconds = await process.stop()
        assert (code, seconds < STOPS_WITHIN_S) == (0, True), (code, seconds)
        await wire.mend()
        simulator.set_faults(submit_timeout=0)
        await there.serve()
        await until_jobs(there.http, is_final, within_s=20)
        await everything_holds(there.http, database_url=postgresql_url, simulator=simulator, prompts=prompts)


async def test_a_signal_while_the_database_stands_still_ends_the_process_all_the_same(
    postgresql_url: str, tmp_path: Path
) -> None:
    async with (
        simulated("run_ms=1000,retry_scale=0.2", seed=2) as simulator,
        wire_to_database(postgresql_url) as (wire, url),
        site(url, tmp_path, provider_url=simulator.url, FLUXGATE_UNCERTAIN_S="1") as there,
    ):
        process = await there.serve()
        prompts = await submit_many(there.http, 6, on_uncertain="resubmit")
        wire.stall()
        waiting = asyncio.create_task(there.http.get("/v1/jobs"))
        ready = await there.http.get("/readyz")
        assert (ready.status_code, [error["path"] for error in ready.json()["errors"]]) == (503, ["database"])
        assert (await there.http.get("/healthz")).status_code == 200
        code, seconds = await process.stop()
        assert (code, seconds < STOPS_WITHIN_S) == (0, True), (code, seconds)
        with contextlib.suppress(httpx.TransportError):
            await waiting
        await wire.mend()
        await there.serve()
        await until_jobs(there.http, is_final, within_s=20)
        await everything_holds(there.http, database_url=postgresql_url, simulator=simulator, prompts=prompts)


async def test_a_worker_that_is_told_to_stop_leaves_its_work_to_the_other_at_once(
    postgresql_url: str, tmp_path: Path
) -> None:
    """A long lease: what is taken over within seconds was given back, not waited for."""
    async with (
        simulated("drop=1,run_ms=500", seed=4) as simulator,
        site(postgresql_url, tmp_path, provider_url=simulator.url, FLUXGATE_LEASE_S="60") as there,
    ):
        _, one, two = await asyncio.gather(there.serve("--no-work"), there.work(), there.work())
        submitting = asyncio.create_task(submit_many(there.http, 30, at_once=4, pause_s=0.1))
        await asyncio.sleep(0.7)
        code, seconds = await one.stop()
        assert (code, seconds < STOPS_WITHIN_S) == (0, True), (code, seconds)
        assert BY_FORCE not in one.log
        prompts = await submitting
        await until_jobs(there.http, is_final, within_s=20)
        jobs = await everything_holds(
            there.http, database_url=postgresql_url, simulator=simulator, prompts=prompts
        )
        assert {(job["state"], len(job["attempts"])) for job in jobs.values()} == {("succeeded", 1)}
        assert (await two.stop())[0] == 0
