"""Processes are killed while they deliver: consumers get every event all the same, in the order of each job."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.faults.callers import is_settled, submit_many, until, until_jobs
from tests.faults.ledger import feed_of
from tests.faults.processes import Process, Site, simulated, site
from tests.paths.consumer import Consumer, consuming

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

KILLS = 3


async def _listens(http: httpx.AsyncClient, consumer: Consumer) -> None:
    answer = await http.post("/v1/endpoints", json={"url": consumer.url})
    assert answer.status_code == 201, answer.text
    consumer.secrets.append(answer.json()["secret"])


async def _jobs_tell(http: httpx.AsyncClient, consumer: Consumer) -> None:
    answer = await http.post("/v1/job-webhook-secret/rotate")
    assert answer.status_code == 200, answer.text
    consumer.secrets.append(answer.json()["secret"])


async def _just_as_it_sends(victim: Process, consumers: Sequence[Consumer]) -> None:
    """Kill a process when a webhook has come and its answer has not gone back yet."""
    before = sum(len(consumer.got) for consumer in consumers)

    async def one_more() -> bool:
        return sum(len(consumer.got) for consumer in consumers) > before

    await until(one_more, within_s=20, every_s=0.002, saying="a webhook comes")
    await victim.kill()


async def _everything_arrives(there: Site, consumer: Consumer, job_ids: set[str] | None = None) -> None:
    async def arrived() -> bool:
        told = [event for event in await feed_of(there.http) if job_ids is None or event["job_id"] in job_ids]
        return {event["id"] for event in told} == set(consumer.ids)

    await until(arrived, within_s=30, every_s=0.3, saying="every event arrives")
    assert consumer.in_job_order()
    assert consumer.forged == 0


async def test_consumers_get_every_event_of_a_process_that_is_killed_again_and_again(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        consuming(slow_s=0.05) as steady,
        consuming(slow_s=0.02, fails=lambda asked: asked in (4, 9, 14)) as shaky,
        consuming(slow_s=0.05) as own,
        simulated(seed=3) as simulator,
        site(
            database_url, tmp_path, provider_url=simulator.url, FLUXGATE_EGRESS_ALLOW="127.0.0.1/32"
        ) as there,
    ):
        process = await there.serve()
        for consumer in (steady, shaky):
            await _listens(there.http, consumer)
        await _jobs_tell(there.http, own)
        submitting = asyncio.gather(
            submit_many(there.http, 20, at_once=2, pause_s=0.2),
            submit_many(there.http, 10, at_once=1, pause_s=0.2, first=20, webhook_url=own.url),
        )
        for _ in range(KILLS):
            await _just_as_it_sends(process, [steady, shaky, own])
            process = await there.serve()
        _, with_url = await submitting
        await until_jobs(there.http, is_settled, within_s=20)
        await _everything_arrives(there, steady)
        await _everything_arrives(there, shaky)
        await _everything_arrives(there, own, set(with_url))
        # The kills did hit what they were meant to hit: something sent and not recorded goes twice.
        assert sum(len(each.ids) - len(set(each.ids)) for each in (steady, shaky, own)) >= 1


async def test_another_worker_goes_on_with_the_endpoint_of_one_that_is_killed(
    postgresql_url: str, tmp_path: Path
) -> None:
    async with (
        consuming(slow_s=0.05) as consumer,
        simulated(seed=4) as simulator,
        site(
            postgresql_url, tmp_path, provider_url=simulator.url, FLUXGATE_EGRESS_ALLOW="127.0.0.1/32"
        ) as there,
    ):
        _, one, _ = await asyncio.gather(there.serve("--no-work"), there.work(), there.work())
        await _listens(there.http, consumer)
        submitting = asyncio.create_task(submit_many(there.http, 30, at_once=3, pause_s=0.2))
        await _just_as_it_sends(one, [consumer])
        await submitting
        await until_jobs(there.http, is_settled, within_s=20)
        await _everything_arrives(there, consumer)
