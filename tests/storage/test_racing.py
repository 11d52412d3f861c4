"""Racing writers: many tell conflicting facts about the same jobs at once, and every job has one story."""

import asyncio
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from service.domain import facts
from service.domain.failures import ErrorCode, JobError, Waiting
from service.domain.history import first_broken
from service.domain.machine import TERMINAL, Decision
from service.domain.results import Image, Output
from service.domain.states import JobState
from service.flows.advance import Step
from tests.storage.world import NOW, Clock, Process, Story, process, request, story_of

FAILURE = JobError(code=ErrorCode.PROVIDER_FAILED, message="It broke.")
PARKED = Waiting(code=ErrorCode.RATE_LIMITED, message="Slow down.", since_ms=NOW, next_try_ms=NOW + 5_000)


def conflicting(one: Process, job_id: str, attempt_id: str) -> list[facts.Fact]:
    """Give everything that may be said about one attempt, most of it contradicting the rest."""
    output = Output(images=(Image(url="https://files.example/1.png"),), seed="1", raw={"seed": 1})
    return [
        one.start(),
        facts.SubmitAccepted(cause="submit", attempt_id=attempt_id, provider_request_id=f"req-{job_id}"),
        facts.SubmitAccepted(cause="poll", attempt_id=attempt_id, provider_request_id=f"req-{job_id}"),
        facts.SubmitUnknown(
            cause="submit", attempt_id=attempt_id, reason="cut", reconcile_ms=NOW, resubmit_ms=NOW
        ),
        facts.SubmitPostponed(cause="submit", attempt_id=attempt_id, waiting=PARKED),
        facts.ProviderStarted(cause="poll", attempt_id=attempt_id),
        facts.ProviderQueued(cause="poll", attempt_id=attempt_id, queue_position=3),
        facts.ProviderSucceeded(cause="callback:cb_1", attempt_id=attempt_id, output=output),
        facts.ProviderFailed(cause="poll", attempt_id=attempt_id, error=FAILURE),
        facts.CancelRequested(cause="api:key_1"),
        facts.DeadlinePassed(cause="clock"),
    ]


def check(story: Story, decisions: list[Decision], told: int) -> None:
    """Check that one job has one story, whoever told what."""
    job, lines, events = story.stored.job, story.lines, story.events
    assert first_broken(lines) is None
    assert [line.seq for line in lines] == list(range(1, told + 1)), "every fact left its line"
    assert (story.stored.history_seq, story.stored.history_hash) == (told, lines[-1].hash)

    moves = [line for line in lines if line.moved]
    assert [line.before for line in moves[1:]] == [line.after for line in moves[:-1]]
    assert sum(line.after in TERMINAL for line in moves) == 1
    assert moves[-1].after == job.state.value in TERMINAL
    assert all(line.before == line.after for line in lines if not line.moved)

    assert [event.job_seq for event in events] == list(range(1, len(events) + 1)), (
        "in commit order, without gaps"
    )
    assert story.stored.event_seq == len(events)
    assert sum(event.type.removeprefix("job.") in TERMINAL for event in events) == 1

    changed = Counter(decision.job.version for decision in decisions if decision.moved)
    assert set(changed.values()) == {1}, "no two decisions made the same version"
    seen = {decision.job.version for decision in decisions} | {1}
    assert seen == set(range(1, job.version + 1)), "the version counts the changes"
    assert len(job.attempts) <= 2


async def tell_all(one: Process, jobs: dict[str, str], seed: int) -> list[Decision]:
    steps = [
        Step(job_id=job_id, fact=fact)
        for job_id, attempt in jobs.items()
        for fact in conflicting(one, job_id, attempt)
    ]
    random.Random(seed).shuffle(steps)
    done = await asyncio.gather(*(one.advance.tell([step]) for step in steps))
    return [decision for decisions in done for decision in decisions if decision is not None]


async def test_tasks_of_one_process_race_for_the_same_jobs(one: Process) -> None:
    accepted = await asyncio.gather(*(one.accept(request()) for _ in range(6)))
    jobs = {made.job.id: (await one.started(made.job.id)).id for made in accepted}
    decisions = await tell_all(one, jobs, 1)
    for job_id in jobs:
        of_job = [decision for decision in decisions if decision.job.id == job_id]
        assert len(of_job) == 11
        story = await story_of(one.door, job_id)
        check_rest(story, of_job)


def check_rest(story: Story, decisions: list[Decision]) -> None:
    """Check the story of a job whose first two lines (accepted, started) were told before the race."""
    as_started = replace(story.stored.job, version=2)
    started = Decision(job=as_started, moved=True, before=JobState.ACCEPTED)
    check(story, [started, *decisions], 2 + len(decisions))


async def test_processes_race_for_the_same_jobs(database_url: str, tmp_path: Path, one: Process) -> None:
    accepted = await asyncio.gather(*(one.accept(request()) for _ in range(5)))
    jobs = {made.job.id: (await one.started(made.job.id)).id for made in accepted}
    together = threading.Barrier(4)

    def run(number: int) -> list[Decision]:
        async def main() -> list[Decision]:
            async with process(database_url, tmp_path, clock=Clock(), name=f"p{number}") as other:
                together.wait(10)
                return await tell_all(other, jobs, number)

        return asyncio.run(main())

    with ThreadPoolExecutor(4) as pool:
        racing = [asyncio.get_running_loop().run_in_executor(pool, run, number) for number in range(4)]
        decisions = [decision for done in await asyncio.gather(*racing) for decision in done]
    for job_id in jobs:
        of_job = [decision for decision in decisions if decision.job.id == job_id]
        assert len(of_job) == 4 * 11
        check_rest(await story_of(one.door, job_id), of_job)


async def test_of_many_who_intend_to_send_one_does(database_url: str, tmp_path: Path, one: Process) -> None:
    """An intent that did not move stops its flow: 8 workers, one request."""
    accepted = await asyncio.gather(*(one.accept(request()) for _ in range(10)))
    ids = [made.job.id for made in accepted]
    together = threading.Barrier(4)

    def run(number: int) -> list[str]:
        async def main() -> list[str]:
            async with process(database_url, tmp_path, name=f"p{number}") as other:
                together.wait(10)
                intents = [Step(job_id=job_id, fact=other.start()) for job_id in ids * 2]
                done = await asyncio.gather(*(other.advance.tell([intent]) for intent in intents))
                return [told.job.id for decisions in done for told in decisions if told and told.moved]

        return asyncio.run(main())

    with ThreadPoolExecutor(4) as pool:
        racing = [asyncio.get_running_loop().run_in_executor(pool, run, number) for number in range(4)]
        won = Counter(job_id for done in await asyncio.gather(*racing) for job_id in done)
    assert won == dict.fromkeys(ids, 1)
    for job_id in ids:
        story = await story_of(one.door, job_id)
        assert len(story.stored.job.attempts) == 1
        assert [line.type for line in story.lines].count("submit.started") == 8
        assert first_broken(story.lines) is None


async def test_one_providers_request_belongs_to_one_attempt_of_all(
    database_url: str, tmp_path: Path, one: Process
) -> None:
    """Two jobs that claim the same request at the same time: the second hears of it, and nothing of it stays."""
    accepted = [await one.accept(request()) for _ in range(2)]
    attempts = [await one.started(made.job.id) for made in accepted]
    async with process(database_url, tmp_path, name="other") as other:

        async def told(teller: Process, number: int) -> object:
            fact = facts.SubmitAccepted(
                cause="submit", attempt_id=attempts[number].id, provider_request_id="req-same"
            )
            return await teller.advance.tell([Step(job_id=accepted[number].job.id, fact=fact)])

        done = await asyncio.gather(told(one, 0), told(other, 1), return_exceptions=True)
    refused = [number for number, outcome in enumerate(done) if isinstance(outcome, Exception)]
    assert len(refused) == 1
    stories = [await story_of(one.door, made.job.id) for made in accepted]
    assert [len(story.lines) for story in stories] == [2 if number in refused else 3 for number in range(2)]
    assert [story.stored.job.state for story in stories].count("queued") == 1
