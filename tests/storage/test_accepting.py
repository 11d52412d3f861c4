"""Idempotency is a constraint: whoever asks at once, and through whichever process, there is one job."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.domain import facts
from service.domain.history import first_broken
from service.domain.ids import JobId
from service.flows.accept import Accepted, IdempotencyMismatch
from service.flows.advance import Step
from tests.storage.world import Process, count_in, process, request, rows_in, story_of


@pytest.fixture
async def three(database_url: str, tmp_path: Path) -> AsyncIterator[list[Process]]:
    """Give three processes on one database."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(process(database_url, tmp_path, name=f"p{number}"))
            for number in range(3)
        ]


def same(key: str = "order-7", body: str = "hash", **fields: object) -> object:
    return request(idempotency_key=key, body_hash=body, **fields)


async def test_many_requests_with_one_key_make_one_job(three: list[Process]) -> None:
    done = await asyncio.gather(*(three[number % 3].accept(same()) for number in range(30)))
    assert len({accepted.job.id for accepted in done}) == 1
    assert sum(not accepted.replayed for accepted in done) == 1
    rows = await three[0].door.read(
        lambda tx: {t: count_in(tx, t) for t in ("job", "history", "event", "work", "idempotency")}
    )
    assert rows == dict.fromkeys(rows, 1)


async def test_many_keys_at_once_make_one_job_each(three: list[Process]) -> None:
    """In different orders: two sets of requests must not wait for each other for good."""
    keys = [f"key-{number}" for number in range(12)]
    orders = [keys, keys[::-1], keys[6:] + keys[:6]]
    asked = [
        process.accept(same(key))
        for process, order in zip(three, orders, strict=True)
        for key in order
        for _ in "ab"
    ]
    async with asyncio.timeout(20):
        done = await asyncio.gather(*asked)
    assert len({accepted.job.id for accepted in done}) == 12
    assert await three[0].door.read(lambda tx: count_in(tx, "job")) == 12


async def test_another_body_with_the_same_key_is_a_mismatch(three: list[Process]) -> None:
    done = await asyncio.gather(
        *(three[number % 3].accept(same(body=f"hash-{number % 2}")) for number in range(12)),
        return_exceptions=True,
    )
    accepted = [outcome for outcome in done if isinstance(outcome, Accepted)]
    refused = [outcome for outcome in done if isinstance(outcome, IdempotencyMismatch)]
    assert (len(accepted), len(refused)) == (6, 6)
    assert len({outcome.job.id for outcome in accepted}) == 1
    assert await three[0].door.read(lambda tx: count_in(tx, "job")) == 1
    with pytest.raises(IdempotencyMismatch):
        await three[2].accept(same(body="hash-2"))


async def test_the_same_key_of_another_tenant_is_another_job(three: list[Process]) -> None:
    done = await asyncio.gather(
        *(three[number % 3].accept(same(tenant=f"tenant-{number % 2}")) for number in range(10))
    )
    assert sorted({accepted.job.tenant for accepted in done}) == ["tenant-0", "tenant-1"]
    assert len({accepted.job.id for accepted in done}) == 2


async def test_a_repetition_gets_the_job_as_it_is_now(three: list[Process]) -> None:
    first = await three[0].accept(same())
    await three[1].taken(first.job.id)
    again = await three[2].accept(same())
    assert again.replayed
    assert (again.job.id, again.job.state) == (first.job.id, "queued")


async def test_requests_without_a_key_are_jobs_of_their_own(three: list[Process]) -> None:
    done = await asyncio.gather(*(three[number % 3].accept(request()) for number in range(20)))
    assert len({accepted.job.id for accepted in done}) == 20


async def test_every_job_begins_with_its_history_its_event_and_its_work(three: list[Process]) -> None:
    done = await asyncio.gather(
        *(three[number % 3].accept(request(metadata={"n": "1"})) for number in range(9))
    )
    for accepted in done:
        story = await story_of(three[1].door, accepted.job.id)
        assert story.stored.job == accepted.job
        assert [(line.seq, line.type, line.cause, line.moved) for line in story.lines] == [
            (1, "job.accepted", "api:key_1", True)
        ]
        assert first_broken(story.lines) is None
        assert [(event.type, event.job_seq) for event in story.events] == [("job.accepted", 1)]
    work = await three[0].door.read(lambda tx: rows_in(tx, "work"))
    assert {row["job_id"] for row in work} == {accepted.job.id for accepted in done}
    assert {row["kind"] for row in work} == {"submit"}


async def test_of_many_retries_at_once_there_is_one_successor(three: list[Process]) -> None:
    for _ in range(3):
        old = (await three[0].accept(request())).job
        await three[0].advance.tell([Step(job_id=old.id, fact=facts.DeadlinePassed(cause="clock"))])
        asked = [three[number % 3].accept(request(retry_of=JobId(old.id))) for number in range(12)]
        done = await asyncio.gather(*asked)
        assert len({accepted.job.id for accepted in done}) == 1
        assert sum(not accepted.replayed for accepted in done) == 1
        assert {accepted.job.retry_of for accepted in done} == {old.id}
    assert await three[0].door.read(lambda tx: count_in(tx, "job")) == 6
