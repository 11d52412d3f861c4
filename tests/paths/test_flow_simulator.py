"""The whole service against the simulator: real sockets, real callbacks, and everything that may go wrong at once."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn

from service.domain import exact_json
from service.domain.history import HistoryLine, first_broken
from service.domain.job import Job
from service.domain.states import JobState, LearnedBy, OnUncertain
from service.flows import read
from service.flows.accept import Request
from service.simulator.app import Simulator
from service.simulator.app import running as simulating
from service.simulator.faults import parse
from service.storage import events as stored_events
from service.storage.events import Event
from service.web.app import create_app
from service.wiring import Service, running
from tests.paths.visitors import settings

#: What consumers are told of each move; everything else in the history moves nothing or is no event.
EVENT_OF = {
    "submitting": None,
    "accepted": None,
    "queued": "job.submitted",
    "uncertain": "job.uncertain",
    "running": "job.running",
}
MISHAPS = (
    "drop=0.25,duplicate=0.25,reorder=0.25,forge=0.4,null_payload=0.15,moderate=0.1,fail=0.1,rate_limit=0.05,"
    "submit_500=0.15,submit_timeout=0.15,hang_ms=300,expire_url=0.2,poll_500=0.05,queue_ms=20,run_ms=120,"
    "retry_scale=0.05,bfl_active_limit=100"
)


@asynccontextmanager
async def at_work(
    database_url: str, folder: Path, faults: str, **more: str
) -> AsyncIterator[tuple[Service, Simulator]]:
    """The service with its worker and its web application on a port, beside a simulator."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        public = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with simulating(faults=parse(faults), seed=11) as simulator:
            urls = {
                "FLUXGATE_FAL_QUEUE_URL": f"{simulator.url}/fal-queue",
                "FLUXGATE_FAL_RUN_URL": f"{simulator.url}/fal-run",
                "FLUXGATE_FAL_JWKS_URL": f"{simulator.url}/fal-rest/.well-known/jwks.json",
                "FLUXGATE_FAL_PLATFORM_URL": f"{simulator.url}/fal-api/v1",
                "FLUXGATE_BFL_URL": f"{simulator.url}/bfl",
                "FLUXGATE_PUBLIC_URL": public,
                "FLUXGATE_POLL_AFTER_S": "1",
                "FLUXGATE_UNCERTAIN_S": "1",
            }
            async with running(settings(database_url, folder, **{**urls, **more}), work=True) as service:
                server = uvicorn.Server(
                    uvicorn.Config(create_app(service), log_level="error", access_log=False, lifespan="off")
                )
                serving = asyncio.create_task(server.serve(sockets=[listener]))
                try:
                    yield service, simulator
                finally:
                    server.should_exit = True
                    await serving


async def run_job(service: Service, number: int, **changes: OnUncertain) -> Job:
    provider, model = (("fal", "fal-ai/flux-2-pro"), ("bfl", "flux-2-pro"))[number % 2]
    given = {"prompt": f"fox number {number}"}
    accepted = await service.accept(
        Request(
            tenant="default",
            cause="api:key_1",
            provider=provider,
            model=model,
            input=given,
            input_text=exact_json.dumps(given),
            deadline_s=60,
            **changes,  # type: ignore[arg-type]
        )
    )
    whole = await read.wait_for_job(service.runtime, tenant="default", job_id=accepted.job.id, wait_s=25)
    return whole.job


async def histories(service: Service, jobs: list[Job]) -> dict[str, list[HistoryLine]]:
    return {
        job.id: await read.history_of(service.runtime, tenant="default", job_id=job.id, after=0, most=1_000)
        for job in jobs
    }


async def at_one_moment(
    service: Service, jobs: list[Job]
) -> tuple[list[Event], dict[str, list[HistoryLine]]]:
    """Read feed and histories when nothing happened between the two readings."""
    while True:
        before = await histories(service, jobs)
        events = await service.runtime.door.read(
            lambda tx: stored_events.feed(tx, tenant="default", after=0, most=5_000)
        )
        if await histories(service, jobs) == before:
            return events, before


async def feed_equals_histories(service: Service, jobs: list[Job]) -> None:
    """Each job's events are numbered without gaps, and tell exactly the moves that its history tells."""
    events, lines_of = await at_one_moment(service, jobs)
    seqs = [event.seq for event in events]
    assert seqs == sorted(set(seqs))
    for job in jobs:
        mine = [event for event in events if event.job_id == job.id]
        assert [event.job_seq for event in mine] == list(range(1, len(mine) + 1))
        lines = lines_of[job.id]
        assert first_broken(lines) is None
        told = ["job.accepted"]
        told += [
            event
            for line in lines[1:]
            if line.moved and (event := EVENT_OF.get(line.after, f"job.{line.after}")) is not None
        ]
        moves = [event.type for event in mine if event.type not in ("job.archived", "job.late_result")]
        assert moves == told
        assert json.loads(mine[-1].data)["id"] == job.id


@pytest.mark.slow
async def test_jobs_end_well_by_callback_and_by_poll(database_url: str, tmp_path: Path) -> None:
    calm = "queue_ms=10,run_ms=60,drop=0.4"
    async with at_work(database_url, tmp_path, calm) as (service, simulator):
        jobs = list(await asyncio.gather(*(run_job(service, number) for number in range(16))))
        assert {job.state for job in jobs} == {JobState.SUCCEEDED}
        learned = {(job.provider, job.learned_by) for job in jobs}
        assert learned == {(p, by) for p in ("fal", "bfl") for by in (LearnedBy.CALLBACK, LearnedBy.POLL)}
        await feed_equals_histories(service, jobs)
        assert len(simulator.requests()) == 16


@pytest.mark.slow
async def test_whatever_goes_wrong_every_job_ends_once_and_is_sent_as_often_as_it_has_attempts(
    database_url: str, tmp_path: Path
) -> None:
    async with at_work(database_url, tmp_path, MISHAPS) as (service, simulator):
        jobs = await asyncio.gather(
            *(run_job(service, number, on_uncertain=OnUncertain.RESUBMIT) for number in range(24))
        )
        held = [job for job in jobs if job.state is JobState.UNCERTAIN]
        final = [job for job in jobs if job.completed_ms is not None]
        assert len(held) + len(final) == 24
        assert all(len(job.attempts) == 2 for job in held)
        # A request that was answered with an error may have been taken or not; none was sent twice.
        by_prompt = Counter(str(row["input"]) for row in simulator.requests())
        allowed = {job.id: len(job.attempts) for job in jobs}
        assert len(simulator.requests()) <= sum(allowed.values())
        assert max(by_prompt.values()) <= 2
        refused = [
            row
            for job in jobs
            for row in await read.callbacks_of(
                service.runtime, tenant="default", job_id=job.id, after="", most=200
            )
            if row["verdict"] in ("forged", "stale", "malformed", "mismatched")
        ]
        assert refused
        for job in final:
            assert job.output is None or job.output.seed != "666"
        await feed_equals_histories(service, list(jobs))
