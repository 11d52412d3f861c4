"""The two books, side by side: what the provider took, and what the service says about it."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from service.domain.history import first_broken
from service.simulator.app import Simulator
from service.storage import history
from service.storage.drivers import open_driver

FINAL = frozenset(("succeeded", "failed", "blocked", "canceled", "expired"))
Job = dict[str, Any]


async def pages(http: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """Read a list to its end."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await http.get(path, params={"limit": 200, **query, **cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def jobs_of(http: httpx.AsyncClient) -> dict[str, Job]:
    """Read every job, by its id."""
    return {job["id"]: job for job in await pages(http, "/v1/jobs")}


async def feed_of(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Read the whole feed, following its cursor as a consumer does."""
    events: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = (await http.get("/v1/events", params={"limit": 200, **after})).json()
        if not page["data"]:
            return events
        events += page["data"]
        after = {"after": page["next_cursor"]}


def requests_of(simulator: Simulator) -> list[dict[str, Any]]:
    """Give every request that the provider took: its list must be as long as its own count."""
    rows: list[dict[str, Any]] = simulator.requests()
    accepted = simulator.world.tally
    assert len(rows) == sum(accepted.get(name, "requests.accepted") for name in simulator.world.providers)
    return rows


async def _feed_with_all_ends(http: httpx.AsyncClient, jobs: Mapping[str, Job]) -> list[dict[str, Any]]:
    """Read the feed; on PostgreSQL an event is numbered a moment after its commit, so it may be a moment late."""
    final = {job_id for job_id, job in jobs.items() if job["state"] in FINAL}
    latest = time.monotonic() + 3
    while True:
        events = await feed_of(http)
        ended = {event["job_id"] for event in events if event["type"].removeprefix("job.") in FINAL}
        if final <= ended or time.monotonic() > latest:
            return events
        await asyncio.sleep(0.1)


def taken_per_token(requests: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Count what the provider took by the token in its callback URL: there is one token for each attempt."""
    return Counter(str(request["callback_url"]).rpartition("/")[2] for request in requests)


def taken_per_prompt(requests: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Count what the provider took by prompt: the tests give every job a prompt of its own."""
    return Counter(str(request["input"]["prompt"]) for request in requests)


def provider_took_at_most_the_attempts(
    requests: Sequence[Mapping[str, Any]], jobs: Mapping[str, Job], prompts: Mapping[str, str]
) -> None:
    """Compare the books: no attempt was taken twice, no job more often than it has attempts, nothing is unknown.

    `prompts` has the prompt of every job by its id.
    """
    doubled = {token: count for token, count in taken_per_token(requests).items() if count > 1}
    assert not doubled, f"{len(doubled)} attempts were taken more than once"
    attempts = {prompts[job_id]: len(job["attempts"]) for job_id, job in jobs.items()}
    taken = taken_per_prompt(requests)
    assert set(taken) <= set(attempts), "the provider knows jobs that we do not know"
    beyond = {
        prompt: (count, attempts[prompt]) for prompt, count in taken.items() if count > attempts[prompt]
    }
    assert not beyond, f"(taken, attempts) {beyond}"
    assert sum(taken.values()) <= sum(attempts.values())


def named_ids_are_the_providers_own(
    requests: Sequence[Mapping[str, Any]], jobs: Mapping[str, Job], prompts: Mapping[str, str]
) -> None:
    """Every provider id in an attempt is one that the provider gave to this very job, and to no other attempt."""
    owner = {request["id"]: request["input"]["prompt"] for request in requests}
    named = [
        (attempt["provider_request_id"], prompts[job_id])
        for job_id, job in jobs.items()
        for attempt in job["attempts"]
        if attempt["provider_request_id"] is not None
    ]
    assert len({request_id for request_id, _ in named}) == len(named)
    assert [pair for pair in named if owner.get(pair[0]) != pair[1]] == []


def feed_is_whole(events: Sequence[Mapping[str, Any]], jobs: Mapping[str, Job]) -> None:
    """The feed only grows, names each event once, and tells each job from 1 on without a gap, with one end at most."""
    numbers = [event["seq"] for event in events]
    assert numbers == sorted(set(numbers))
    assert len({event["id"] for event in events}) == len(events)
    told: dict[str, list[Mapping[str, Any]]] = {job_id: [] for job_id in jobs}
    for event in events:
        told[event["job_id"]].append(event)
    for job_id, story in told.items():
        assert [event["job_seq"] for event in story] == list(range(1, len(story) + 1)), story
        assert story[0]["type"] == "job.accepted"
        ends = [event["type"] for event in story if event["type"].removeprefix("job.") in FINAL]
        state = jobs[job_id]["state"]
        assert ends == ([f"job.{state}"] if state in FINAL else []), (state, story)


async def histories_hold(http: httpx.AsyncClient, database_url: str, jobs: Mapping[str, Job]) -> None:
    """Every job's chain of history is unbroken, ends where the job stands, and ends it once at most."""
    driver = open_driver(database_url, lambda: 0)
    try:
        chains = {
            job_id: driver.read(lambda tx, job_id=job_id: history.of_job(tx, job_id, after=0, most=1_000))
            for job_id in jobs
        }
    finally:
        driver.close()
    for job_id, lines in chains.items():
        assert first_broken(lines) is None
        moves = [line for line in lines if line.moved]
        assert moves[-1].after == jobs[job_id]["state"]
        assert [line.before for line in moves[1:]] == [line.after for line in moves[:-1]]
        assert sum(line.after in FINAL for line in moves) <= 1
    # What users are shown is the same story.
    job_id = next(iter(jobs))
    shown = await pages(http, f"/v1/jobs/{job_id}/history")
    assert [line["hash"] for line in shown] == [line.hash for line in chains[job_id]]


async def everything_holds(
    http: httpx.AsyncClient,
    *,
    database_url: str,
    simulator: Simulator,
    prompts: Mapping[str, str],
) -> dict[str, Job]:
    """Compare all books and give the jobs; `prompts` names every job that was ever answered with 202."""
    requests = requests_of(simulator)
    jobs = await jobs_of(http)
    assert set(jobs) == set(prompts), "a job was lost, or made twice"
    provider_took_at_most_the_attempts(requests, jobs, prompts)
    named_ids_are_the_providers_own(requests, jobs, prompts)
    feed_is_whole(await _feed_with_all_ends(http, jobs), jobs)
    await histories_hold(http, database_url, jobs)
    return jobs
