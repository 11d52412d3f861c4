"""The database or the provider goes away and comes back: callers are told, nothing is burnt, all goes on by itself."""

import asyncio
import random
import resource
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.simulator.app import Simulator
from tests.faults.callers import body, files_are_kept, is_final, submit, submit_many, until, until_jobs
from tests.faults.ledger import Job, everything_holds, jobs_of, pages
from tests.faults.processes import LEASE_S, Process, simulated, site
from tests.faults.proxy import wire_to, wire_to_database

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


def _is_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "unavailable"
    assert int(answer.headers["retry-after"]) >= 1


async def _everybody_is_told(http: httpx.AsyncClient, a_job: str) -> None:
    """Clients get 503 with Retry-After; the process lives and says what it lacks."""
    for answer in await asyncio.gather(
        http.post("/v1/jobs", json=body(999)), http.get(f"/v1/jobs/{a_job}"), http.get("/v1/jobs?limit=1")
    ):
        _is_unavailable(answer)
    ready = await http.get("/readyz")
    _is_unavailable(ready)
    assert [error["path"] for error in ready.json()["errors"]] == ["database"]
    assert (await http.get("/healthz")).status_code == 200


def _answers_to_callbacks(simulator: Simulator) -> list[Any]:
    return [
        answer["status"]
        for row in simulator.requests()
        for answer in row["answers"]  # type: ignore[attr-defined]
        if answer["kind"] == "genuine"
    ]


async def _providers_are_told(simulator: Simulator) -> None:
    async def refused() -> bool:
        return 503 in _answers_to_callbacks(simulator)

    await until(refused, within_s=10, saying="callbacks are answered 503")


async def _each_callback_counts_once(http: httpx.AsyncClient, ids: list[str]) -> None:
    for job_id in ids:
        verdicts = [row["verdict"] for row in await pages(http, f"/v1/jobs/{job_id}/callbacks")]
        assert verdicts.count("verified") <= 1, verdicts
        assert set(verdicts) <= {"verified", "duplicate"}, verdicts


async def test_postgresql_goes_away_and_comes_back(postgresql_url: str, tmp_path: Path) -> None:
    async with (
        simulated("run_ms=1500,retry_scale=0.3,bfl_auth=secret") as simulator,
        wire_to_database(postgresql_url) as (wire, url),
        site(url, tmp_path, provider_url=simulator.url, FLUXGATE_POLL_AFTER_S="20") as there,
    ):
        await there.serve()
        prompts = await submit_many(there.http, 12)
        await until_jobs(there.http, lambda job: job["state"] in ("queued", "running"), within_s=10)
        await wire.cut()
        await _everybody_is_told(there.http, next(iter(prompts)))
        await _providers_are_told(simulator)
        await wire.mend()
        prompts[await submit(there.http, 12, within_s=10)] = "fox number 12"
        assert (await there.http.get("/readyz")).status_code == 200
        await until_jobs(there.http, is_final, within_s=15)
        jobs = await everything_holds(
            there.http, database_url=postgresql_url, simulator=simulator, prompts=prompts
        )
        assert {(job["state"], job["learned_by"]) for job in jobs.values()} == {("succeeded", "callback")}
        await _each_callback_counts_once(there.http, list(jobs))


async def test_a_database_that_breaks_again_and_again_leaves_no_job_behind(
    postgresql_url: str, tmp_path: Path
) -> None:
    """Connections break in the middle of claiming, asking and recording; what was begun is taken up again."""
    dice = random.Random(3)
    async with (
        simulated(
            "drop=0.6,duplicate=0.3,retry_scale=0.2,run_ms=300,submit_timeout=0.1,hang_ms=700"
        ) as simulator,
        wire_to_database(postgresql_url) as (wire, url),
        site(url, tmp_path, provider_url=simulator.url, FLUXGATE_UNCERTAIN_S="1") as there,
    ):
        await there.serve()
        submitting = asyncio.create_task(
            submit_many(there.http, 40, at_once=4, pause_s=0.1, on_uncertain="resubmit")
        )
        for _ in range(8):
            await asyncio.sleep(dice.uniform(0.2, 0.6))
            await wire.cut()
            await asyncio.sleep(dice.uniform(0.02, 0.3))
            await wire.mend()
        prompts = await submitting
        await until_jobs(
            there.http, lambda job: is_final(job) or _is_unknown_twice(job), within_s=LEASE_S + 15
        )
        jobs = await everything_holds(
            there.http, database_url=postgresql_url, simulator=simulator, prompts=prompts
        )
        succeeded = [job for job in jobs.values() if job["state"] == "succeeded"]
        assert len(succeeded) > 30
        await until(lambda: files_are_kept(there.http), within_s=LEASE_S + 15, saying="files are kept")


def _is_unknown_twice(job: Job) -> bool:
    """Sent once more on request, and again nobody could tell; its callback was lost, too."""
    return (
        job["state"] == "uncertain" and [attempt["state"] for attempt in job["attempts"]] == ["uncertain"] * 2
    )


def _limit_files(process: Process, most_bytes: int) -> None:
    """No file of the process may grow beyond this: to it, the disk is full."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


async def test_a_full_disk_is_told_to_everybody_and_costs_no_job(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        simulated("run_ms=1500,retry_scale=0.3,bfl_auth=secret") as simulator,
        site(sqlite_url, tmp_path, provider_url=simulator.url, FLUXGATE_POLL_AFTER_S="20") as there,
    ):
        process = await there.serve()
        prompts = await submit_many(there.http, 8)
        await until_jobs(there.http, lambda job: job["state"] in ("queued", "running"), within_s=10)
        _limit_files(process, 4096)
        _is_unavailable(await there.http.post("/v1/jobs", json=body(999)))
        await _providers_are_told(simulator)
        assert (await there.http.get("/healthz")).status_code == 200
        assert (await there.http.get(f"/v1/jobs/{next(iter(prompts))}")).status_code == 200
        _limit_files(process, resource.RLIM_INFINITY)
        prompts[await submit(there.http, 8, within_s=10)] = "fox number 8"
        await until_jobs(there.http, is_final, within_s=15)
        jobs = await everything_holds(
            there.http, database_url=sqlite_url, simulator=simulator, prompts=prompts
        )
        assert {(job["state"], job["learned_by"]) for job in jobs.values()} == {("succeeded", "callback")}
        await _each_callback_counts_once(there.http, list(jobs))


async def test_a_sqlite_file_that_somebody_else_locks_makes_us_unready_and_costs_only_time(
    sqlite_url: str, tmp_path: Path
) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    async with (
        simulated() as simulator,
        site(sqlite_url, tmp_path, provider_url=simulator.url) as there,
    ):
        await there.serve()
        with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            submitting = asyncio.create_task(submit_many(there.http, 4))
            ready = await there.http.get("/readyz")
            _is_unavailable(ready)
            assert [error["path"] for error in ready.json()["errors"]] == ["database"]
            assert (await there.http.get("/healthz")).status_code == 200
            assert (await there.http.get("/v1/jobs")).json()["data"] == []
            assert not submitting.done()
            somebody.execute("ROLLBACK")
        prompts = await submitting
        await until_jobs(there.http, is_final, within_s=10)
        await everything_holds(there.http, database_url=sqlite_url, simulator=simulator, prompts=prompts)
        assert (await there.http.get("/readyz")).status_code == 200


async def test_a_provider_that_goes_away_parks_the_jobs_and_burns_no_attempt(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        simulated("drop=1,run_ms=1000") as simulator,
        wire_to(int(simulator.url.rpartition(":")[2])) as wire,
        site(database_url, tmp_path, provider_url=wire.port.url) as there,
    ):
        await there.serve()
        prompts = await submit_many(there.http, 8)
        await until_jobs(there.http, lambda job: job["state"] in ("queued", "running"), within_s=10)
        await wire.cut()
        prompts |= await submit_many(there.http, 12, first=8)
        parked = await until(lambda: _parked(there.http, 12), within_s=10, saying="the new jobs are parked")
        for job in parked:
            assert job["state"] == "accepted"
            assert job["waiting"]["code"] == "provider_unavailable"
            assert job["waiting"]["since"] < job["waiting"]["next_try_at"]
            assert [attempt["number"] for attempt in job["attempts"]] == [1]
        text = (await there.http.get("/metrics")).text
        assert 'code="provider_unavailable"' in text or "provider_unavailable" in text
        assert len(simulator.requests()) == 8
        await wire.mend()
        await until_jobs(there.http, is_final, within_s=20)
        jobs = await everything_holds(
            there.http, database_url=database_url, simulator=simulator, prompts=prompts
        )
        assert {(job["state"], job["learned_by"], job["waiting"]) for job in jobs.values()} == {
            ("succeeded", "poll", None)
        }
        assert {len(job["attempts"]) for job in jobs.values()} == {1}
        assert len(simulator.requests()) == 20


async def _parked(http: httpx.AsyncClient, count: int) -> list[dict[str, Any]]:
    waiting = [job for job in (await jobs_of(http)).values() if job["waiting"] is not None]
    return waiting if len(waiting) == count else []
