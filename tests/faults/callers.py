"""Callers as a backend would write them: they repeat what they cannot be sure of, under the same key."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from tests.faults.ledger import FINAL, Job, jobs_of

MODELS = {"fal": "fal-ai/flux-2-pro", "bfl": "flux-2-pro"}


def body(number: int, **changes: Any) -> dict[str, Any]:
    """Make the body of the n-th job: the providers take turns, and every prompt is its own."""
    provider = ("fal", "bfl")[number % 2]
    prompt = f"fox number {number}"
    return {"provider": provider, "model": MODELS[provider], "input": {"prompt": prompt}, **changes}


async def submit(http: httpx.AsyncClient, number: int, *, within_s: float = 60, **changes: Any) -> str:
    """Submit until it is answered, whatever happens to the service meanwhile; give the job's id."""
    until = time.monotonic() + within_s
    while True:
        try:
            answer = await http.post(
                "/v1/jobs", json=body(number, **changes), headers={"Idempotency-Key": f"job-{number}"}
            )
        except httpx.TransportError:
            assert time.monotonic() < until, "the service never came back"
        else:
            if answer.status_code != 503:
                assert answer.status_code in (200, 202), answer.text
                job_id: str = answer.json()["id"]
                return job_id
            assert "retry-after" in answer.headers
        await asyncio.sleep(0.1)


async def submit_many(
    http: httpx.AsyncClient,
    count: int,
    *,
    at_once: int = 20,
    first: int = 0,
    pause_s: float = 0,
    **changes: Any,
) -> dict[str, str]:
    """Submit jobs side by side; give their prompts by id."""
    room = asyncio.Semaphore(at_once)

    async def one(number: int) -> tuple[str, str]:
        async with room:
            job_id = await submit(http, number, **changes)
            await asyncio.sleep(pause_s)
            return job_id, f"fox number {number}"

    return dict(await asyncio.gather(*[one(number) for number in range(first, first + count)]))


async def until(
    what: Callable[[], Awaitable[Any]], *, within_s: float, every_s: float = 0.1, saying: str = ""
) -> Any:
    """Look again and again until there is something to see, and give it."""
    end = time.monotonic() + within_s
    while True:
        seen = await what()
        if seen:
            return seen
        assert time.monotonic() < end, f"not within {within_s} s: {saying}"
        await asyncio.sleep(every_s)


async def until_jobs(
    http: httpx.AsyncClient, fits: Callable[[Job], bool], *, within_s: float
) -> Mapping[str, Job]:
    """Wait until every job fits, and give them."""
    end = time.monotonic() + within_s
    while True:
        jobs = await jobs_of(http)
        others = [job for job in jobs.values() if not fits(job)]
        if not others:
            return jobs
        shown = [(job["id"], job["state"], job["waiting"], job["attempts"]) for job in others[:5]]
        assert time.monotonic() < end, f"{len(others)} of {len(jobs)} jobs after {within_s} s: {shown}"
        await asyncio.sleep(0.25)


def is_final(job: Job) -> bool:
    return job["state"] in FINAL


def is_settled(job: Job) -> bool:
    return job["state"] in FINAL or job["state"] == "uncertain"


async def files_are_kept(http: httpx.AsyncClient) -> bool:
    """Tell whether every result file of a succeeded job is kept by us, and can be read."""
    jobs = await jobs_of(http)
    images = [
        image for job in jobs.values() if job["state"] == "succeeded" for image in job["output"]["images"]
    ]
    if not all(image["sha256"] for image in images):
        return False
    answer = await http.get(f"/v1/artifacts/{images[0]['artifact_id']}")
    return answer.status_code == 200 and answer.headers["content-type"] == "image/png"
