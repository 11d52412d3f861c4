"""Whoever follows `next_cursor` while processes write at once sees each event once, and each job's in its order."""

import asyncio
import random
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from service.domain import facts
from service.flows.advance import Step
from service.flows.feed import feed
from service.flows.tail import Tail
from service.storage import events
from tests.storage.test_racing import conflicting
from tests.storage.world import Process, process, request

JOBS = 12


async def live(one: Process, others: list[Process], dice: random.Random) -> None:
    """Take one job through its life, each step told by another process, with much that contradicts it."""
    job = (await one.accept(request())).job
    attempt = await one.started(job.id)
    told = conflicting(one, job.id, attempt.id)
    dice.shuffle(told)
    first = facts.SubmitAccepted(cause="submit", attempt_id=attempt.id, provider_request_id=f"req-{job.id}")
    for fact in (first, *told):
        await dice.choice(others).advance.tell([Step(job_id=job.id, fact=fact)])


async def test_a_reader_that_follows_the_cursor_while_processes_write(
    database_url: str, tmp_path: Path
) -> None:
    dice = random.Random(3)
    async with AsyncExitStack() as stack:
        writers = [
            await stack.enter_async_context(process(database_url, tmp_path, name=name)) for name in "pqr"
        ]
        reading = await stack.enter_async_context(process(database_url, tmp_path, name="reader"))
        tail = Tail(replace(reading.runtime, sleep=asyncio.sleep))
        tail.start()
        stack.push_async_callback(tail.stop)
        writing = asyncio.gather(*(live(writers[n % 3], writers, dice) for n in range(JOBS)))

        async def follow(most: int, wait_s: float) -> list[events.Event]:
            seen: list[events.Event] = []
            after: int | None = None
            while True:
                over = writing.done()
                page = await feed(tail, tenant="default", after=after, types=None, most=most, wait_s=wait_s)
                seen += page.events
                after = page.following
                if over and not page.events:
                    return seen

        async with asyncio.timeout(60):
            quick, slow, patient = await asyncio.gather(follow(3, 0), follow(200, 0.01), follow(7, 0.2))
            await writing
        everything = await reading.door.read(
            lambda tx: events.feed(tx, tenant="default", after=0, most=100_000)
        )
    seqs = [event.seq for event in everything]
    assert seqs == list(range(1, len(seqs) + 1))
    assert quick == slow == patient == everything
    by_job: dict[str, list[int]] = defaultdict(list)
    for event in everything:
        assert event.job_id is not None
        assert event.job_seq is not None
        by_job[event.job_id].append(event.job_seq)
    assert len(by_job) == JOBS
    assert all(own == list(range(1, len(own) + 1)) and len(own) >= 3 for own in by_job.values())
