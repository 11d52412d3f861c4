"""A process is killed in the middle of its work: nothing is lost, nothing is doubled, and the rest goes on."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import psycopg
import pytest

from service.simulator.app import Simulator
from tests.faults.callers import files_are_kept, is_final, is_settled, submit_many, until, until_jobs
from tests.faults.ledger import Job, everything_holds, jobs_of, pages
from tests.faults.processes import LEASE_S, Process, Site, simulated, site

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

#: Lost, doubled, late, forged callbacks; submits that hang, break off, fail or are refused.
FAULTS = (
    "drop=0.15,duplicate=0.2,late=0.1,late_ms=1500,forge=0.1,reorder=0.1,retry_scale=0.2,"
    "submit_timeout=0.1,hang_ms=1200,submit_500=0.04,rate_limit=0.05,null_payload=0.05,poll_500=0.05,"
    "bfl_auth=secret"
)
KILLS = 3
#: By then the jobs that may be sent once more, and were interrupted twice, have ended for good.
DEADLINE_S = 30


async def _submit_all(http: httpx.AsyncClient) -> dict[str, str]:
    held, resent = await asyncio.gather(
        submit_many(http, 25, at_once=2, pause_s=0.35),
        submit_many(
            http, 25, at_once=2, pause_s=0.35, first=25, on_uncertain="resubmit", deadline_s=DEADLINE_S
        ),
    )
    return {**held, **resent}


async def _killed_again_and_again(there: Site, simulator: Simulator, dice: random.Random) -> None:
    """Kill the process at moments that the dice choose, twice while a submit is surely in flight."""
    for number in range(KILLS):
        running = await there.serve()
        if number < 2:
            await _a_submit_hangs(simulator)
        await asyncio.sleep(dice.uniform(0.1, 0.9))
        await running.kill()
    await there.serve()


async def _a_submit_hangs(simulator: Simulator) -> None:
    """Turn the dial up until one more submit is left without an answer."""
    usual = simulator.world.faults

    def hanging() -> int:
        tally = simulator.world.tally
        return sum(tally.get(name, "requests.submit_fates.submit_hanging") for name in ("fal", "bfl"))

    before = hanging()

    async def one_more() -> bool:
        return hanging() > before

    simulator.set_faults(submit_timeout=0.7)
    await until(one_more, within_s=20, every_s=0.01, saying="a submit is left hanging")
    simulator.set_faults(submit_timeout=usual.submit_timeout)


async def _some_were_interrupted(http: httpx.AsyncClient, jobs: Mapping[str, Job]) -> None:
    """The kills did hit what they were meant to hit: a submit begun whose own answer was never recorded."""
    histories = [await pages(http, f"/v1/jobs/{job_id}/history") for job_id in jobs]
    assert any(_was_interrupted(history) for history in histories)


def _was_interrupted(history: list[Job]) -> bool:
    told = [line for line in history if line["cause"] == "submit"]
    answered = [
        line
        for line in told
        if line["type"] != "submit.started"
        and line["detail"].get("reason") != "the process that was sending it stopped"
    ]
    return len(answered) < sum(line["type"] == "submit.started" for line in told)


async def _interrupted_jobs_go_on(http: httpx.AsyncClient) -> None:
    """What nobody was working on any more is taken up within the lease and 5 seconds."""
    found = await jobs_of(http)
    stopped = {
        job["id"]: job["version"]
        for job in found.values()
        if job["state"] == "submitting" or (job["state"] == "accepted" and job["waiting"] is None)
    }

    async def all_moved() -> bool:
        now = await jobs_of(http)
        return all(now[job_id]["version"] > version for job_id, version in stopped.items())

    await until(all_moved, within_s=LEASE_S + 5, saying="the interrupted jobs go on")


def _expired_only_where_nobody_could_tell(jobs: Mapping[str, Job]) -> None:
    for job in jobs.values():
        if job["state"] == "expired":
            assert job["error"]["code"] == "submit_uncertain", job
            assert [attempt["provider_request_id"] for attempt in job["attempts"]] == [None] * 2, job


async def test_fifty_jobs_survive_a_process_that_is_killed_again_and_again(
    database_url: str, tmp_path: Path
) -> None:
    dice = random.Random(f"{database_url.partition(':')[0]}")
    async with (
        simulated(FAULTS, seed=11) as simulator,
        site(database_url, tmp_path, provider_url=simulator.url, FLUXGATE_UNCERTAIN_S="1") as there,
    ):
        prompts, _ = await asyncio.gather(
            _submit_all(there.http), _killed_again_and_again(there, simulator, dice)
        )
        assert len(prompts) == 50
        await _interrupted_jobs_go_on(there.http)
        await until_jobs(
            there.http,
            lambda job: is_final(job) or (job["on_uncertain"] == "hold" and is_settled(job)),
            within_s=DEADLINE_S + 5,
        )
        jobs = await everything_holds(
            there.http, database_url=database_url, simulator=simulator, prompts=prompts
        )
        _expired_only_where_nobody_could_tell(jobs)
        _held_jobs_were_sent_once(jobs)
        await _some_were_interrupted(there.http, jobs)
        await until(lambda: files_are_kept(there.http), within_s=15, saying="result files are kept")


def _held_jobs_were_sent_once(jobs: Mapping[str, Job]) -> None:
    assert {len(job["attempts"]) for job in jobs.values() if job["on_uncertain"] == "hold"} == {1}
    assert {len(job["attempts"]) for job in jobs.values() if job["on_uncertain"] == "resubmit"} <= {1, 2}
    assert sum(job["state"] == "succeeded" for job in jobs.values()) > 25


def _claims_of(database_url: str, worker: Process) -> int:
    """Count what a worker holds at this moment: claims carry the pid."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM work WHERE claim LIKE %s", [f"%-{worker.pid}-%"]
        ).fetchone()
    assert row is not None
    return int(row[0])


async def test_workers_share_the_work_and_one_takes_over_from_another_that_is_killed(
    postgresql_url: str, tmp_path: Path
) -> None:
    # Whatever hangs was taken, and every callback proves itself: so in the end all is known.
    faults = "submit_timeout=0.3,hang_ms=2500,duplicate=0.2,retry_scale=0.2,bfl_auth=secret"
    async with (
        simulated(faults, seed=5) as simulator,
        site(postgresql_url, tmp_path, provider_url=simulator.url, FLUXGATE_UNCERTAIN_S="1") as there,
    ):
        _, one, two = await asyncio.gather(there.serve("--no-work"), there.work(), there.work())
        submitting = asyncio.create_task(
            submit_many(there.http, 60, at_once=4, pause_s=0.1, on_uncertain="resubmit", deadline_s=60)
        )

        async def caught_while_both_hold_some() -> bool:
            """Stopped first and looked at then: a claim may be gone before a kill reaches who held it."""
            os.kill(one.pid, signal.SIGSTOP)
            await asyncio.sleep(0.1)
            claims = [await asyncio.to_thread(_claims_of, postgresql_url, worker) for worker in (one, two)]
            if min(claims) > 0:
                return True
            os.kill(one.pid, signal.SIGCONT)
            return False

        await until(caught_while_both_hold_some, within_s=15, every_s=0.05, saying="both workers hold work")
        await one.kill()
        assert _claims_of(postgresql_url, one) > 0
        prompts = await submitting
        await _interrupted_jobs_go_on(there.http)
        await until_jobs(there.http, is_final, within_s=30)
        assert _claims_of(postgresql_url, one) == 0
        jobs = await everything_holds(
            there.http, database_url=postgresql_url, simulator=simulator, prompts=prompts
        )
        assert {job["state"] for job in jobs.values()} == {"succeeded"}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def test_a_process_killed_while_it_makes_its_database_can_be_started_again(
    empty_sqlite_url: str, tmp_path: Path
) -> None:
    dice = random.Random(8)
    path = Path(empty_sqlite_url.removeprefix("sqlite:///"))
    async with (
        simulated() as simulator,
        site(empty_sqlite_url, tmp_path, provider_url=simulator.url) as there,
    ):
        for _ in range(2):
            starting = asyncio.create_task(there.serve())
            await _while_it_grows(path)
            await asyncio.sleep(dice.uniform(0, 0.05))
            await there.kill_all()
            with contextlib.suppress(AssertionError):
                await starting
        await there.serve()
        assert (await there.http.get("/readyz")).status_code == 200
        prompts = await submit_many(there.http, 2)
        await until_jobs(there.http, is_final, within_s=10)
        await everything_holds(
            there.http, database_url=empty_sqlite_url, simulator=simulator, prompts=prompts
        )


async def _while_it_grows(path: Path) -> None:
    """Wait for the moment at which the file is being made, or made larger; at most as long as a start takes."""
    before, end = _size(path), time.monotonic() + 4
    while _size(path) <= before and time.monotonic() < end:
        await asyncio.sleep(0.001)
